import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5Model

from genrec.errors import DataError, RecipeError
from tests.training.bench import RememberingProgress
from training.embed_text import encoder, item_texts, text_columns, tfidf
from training.recipe_data import EncoderPart, TfidfPart

ITEMS = pa.table(
    {
        "item_id": ["1", "2", "3", "4"],
        "title": ["M", "red nail polish", "blue nail polish", None],
        "year": [1931, 2001, 2002, None],
        "genres": pa.array([["Crime"], ["Nails"], ["Nails"], []], pa.list_(pa.string())),
    }
)


def test_text_is_read_from_string_and_list_columns_or_from_those_named() -> None:
    assert text_columns(ITEMS, None) == ["title", "genres"]
    assert item_texts(ITEMS, ["title", "year", "genres"]) == [
        "M 1931 Crime",
        "red nail polish 2001 Nails",
        "blue nail polish 2002 Nails",
        "",
    ]
    with pytest.raises(DataError, match="did you mean 'title'"):
        text_columns(ITEMS, ["titel"])
    with pytest.raises(DataError, match="no text to embed"):
        text_columns(ITEMS.select(["item_id", "year"]), None)


def test_tfidf_puts_like_texts_together_and_keeps_words_of_one_letter() -> None:
    part = tfidf(ITEMS, TfidfPart(), seed=1)
    unit = part.vectors[:3] / np.linalg.norm(part.vectors[:3], axis=1, keepdims=True)
    assert unit[1] @ unit[2] > 0.5 > unit[0] @ unit[1]
    assert "m" in part.description["vocabulary"]  # type: ignore[operator]
    assert not part.vectors[3].any()


def test_a_new_items_vector_follows_from_what_is_stored() -> None:
    part = tfidf(ITEMS, TfidfPart(), seed=1)
    words: list[str] = part.description["vocabulary"]  # type: ignore[assignment]
    weights = np.zeros(len(words))
    for word in ("red", "nail", "polish", "nails"):
        weights[words.index(word)] = part.tensors["tfidf.idf"][words.index(word)]
    vector = part.tensors["tfidf.components"] @ (weights / np.linalg.norm(weights))
    np.testing.assert_allclose(vector, part.vectors[1], atol=1e-5)


def test_columns_without_a_word_are_refused() -> None:
    with pytest.raises(DataError, match="no words at all"):
        tfidf(pa.table({"item_id": ["1"], "title": ["!?"]}), TfidfPart(), seed=1)


@pytest.fixture(scope="module", params=["encoder", "encoder-decoder"])
def model_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of a few hundred weights with a tokenizer of whole words."""
    path = tmp_path_factory.mktemp("model")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "red", "blue", "nail", "polish", "M"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    torch.manual_seed(0)
    if request.param == "encoder":
        shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        BertModel(BertConfig(vocab_size=7, max_position_embeddings=32, **shape)).save_pretrained(path)
    else:
        T5Model(T5Config(vocab_size=7, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(path)
    return path


def test_any_automodel_is_averaged_over_the_tokens_of_each_text(model_path: Path) -> None:
    together = encoder(ITEMS, EncoderPart(model=str(model_path), columns=("title",)), RememberingProgress())
    alone = encoder(ITEMS, EncoderPart(model=str(model_path), columns=("title",), batch_size=1), RememberingProgress())
    assert together.vectors.shape == (4, 8)
    # Padding in a batch changes nothing: the mean is over the text alone.
    np.testing.assert_allclose(together.vectors, alone.vectors, atol=1e-5)
    assert together.vectors[:3].any(axis=1).all()
    assert not together.vectors[3].any()


def test_a_model_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"embed\.encoder\.model = .*nowhere.* cannot be loaded"):
        encoder(ITEMS, EncoderPart(model=str(tmp_path / "nowhere")), RememberingProgress())


def test_weights_that_are_a_pickle_are_not_loaded(model_path: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(model_path, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(AutoModel.from_pretrained(model_path).state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be loaded"):
        encoder(ITEMS, EncoderPart(model=str(pickled)), RememberingProgress())


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(RecipeError, match=r"install genrec\[encoders\]"):
        encoder(ITEMS, EncoderPart(model="x", library="sentence-transformers"), RememberingProgress())


def test_sentence_transformers_pool_in_their_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def __init__(self, name: str) -> None:
            assert name == "some/model"
            self.max_seq_length = 512

        def encode(self, texts: list[str], **options: Any) -> Any:
            assert self.max_seq_length == 16
            return np.array([[len(text), 1.0] for text in texts])

    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    part = EncoderPart(model="some/model", library="sentence-transformers", columns=("title",), max_tokens=16)
    assert encoder(ITEMS, part, RememberingProgress()).vectors.tolist() == [[1, 1], [15, 1], [16, 1], [0, 0]]
