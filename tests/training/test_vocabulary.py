import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from genrec.bundle import load_bundle
from genrec.errors import DataError, InputError, RecipeError
from genrec.item_tokens import spell_all
from tests.fakes import TinyShape, tiny_bundle
from tests.training.bench import RememberingProgress, recipe, run_stage
from tests.training.families import FAMILIES, PADDED, SIZES, TIED, WORDS, base_of, tokenizer, write_base
from training import vocabulary
from training.base import BaseBundle
from training.recipe_model import PromptText
from training.vocabulary import (
    decoder_prefix,
    extend,
    grown,
    is_tied,
    load_trainable,
    prompt_ids,
    read_item_tokens,
    save_checkpoint,
    spread,
)

BEFORE = WORDS + 4
ADDED = sum(SIZES)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint; load it, do not change it."""
    return write_base(family, tmp_path_factory.mktemp(family))


def matrices(model: PreTrainedModel) -> list[torch.Tensor]:
    sides = (model.get_input_embeddings(), model.get_output_embeddings())
    return [side.weight.detach().clone() for side in sides]


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    batch = {"input_ids": torch.arange(4, 12)[None]}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.tensor([[0, 5, 6]])
    return model.eval()(**batch).logits[..., :BEFORE]


def test_every_code_of_every_level_gets_a_token_and_a_row(family: str, base: Path) -> None:
    model, words = base_of(family, base)
    old = matrices(model)
    rows = extend(model, words, SIZES)
    assert rows == slice(BEFORE, BEFORE + ADDED)
    assert words.convert_tokens_to_ids(spell_all(SIZES)) == list(range(rows.start, rows.stop))
    assert len(words) == model.config.vocab_size == BEFORE + ADDED
    for before, after in zip(old, matrices(model), strict=True):
        assert after.shape[0] == BEFORE + ADDED
        assert torch.equal(after[:BEFORE], before)


def test_what_the_model_says_of_its_old_vocabulary_does_not_change(family: str, base: Path, tmp_path: Path) -> None:
    """T5 v1.1 is the trap: resizing overwrites its head with the input embedding if its config is believed."""
    model, words = base_of(family, base)
    before = logits(model)
    spread(model, extend(model, words, SIZES))
    assert torch.equal(logits(model), before)
    save_checkpoint(model, words, tmp_path / "grown")
    reloaded = load_trainable(tmp_path / "grown", "seq2seq" if family.startswith("t5") else "causal")
    assert torch.equal(logits(reloaded), before)
    assert is_tied(reloaded) == is_tied(model) == (family in TIED)


def test_new_rows_are_as_wide_apart_as_old_ones(family: str, base: Path) -> None:
    model, words = base_of(family, base)
    torch.manual_seed(0)
    rows = extend(model, words, SIZES)
    spread(model, rows)
    for weight in matrices(model):
        old, new = weight[:BEFORE], weight[rows]
        assert 0.5 < new.std() / old.std() < 2
        assert (new.mean(0) - old.mean(0)).abs().max() < 4 * old.std() / ADDED**0.5
        alike = torch.nn.functional.cosine_similarity(new[:, None], new[None], dim=-1)
        assert alike[~torch.eye(ADDED, dtype=torch.bool)].max() < 0.95


@pytest.mark.parametrize("family", ["qwen3", "llama", "t5"])
def test_a_matrix_padded_beyond_its_tokenizer_is_not_shrunk(family: str, tmp_path: Path) -> None:
    model, words = base_of(family, write_base(family, tmp_path, rows=PADDED))
    rows = extend(model, words, SIZES)
    assert rows == slice(BEFORE, BEFORE + ADDED)
    assert [len(matrix) for matrix in matrices(model)] == [PADDED, PADDED]
    assert model.config.vocab_size == PADDED


def test_a_base_with_holes_among_its_ids_is_refused(tmp_path: Path) -> None:
    """The tokenizer would give a new token the id of an old word, without a notice."""
    model, _ = base_of("llama", write_base("llama", tmp_path, rows=80))
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3, "word0": 4, "word1": 6}
    holed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")))
    with pytest.raises(DataError, match="without holes"):
        extend(model, holed, SIZES)


def test_a_base_that_knows_an_item_token_is_refused_by_name(tmp_path: Path) -> None:
    model, words = base_of("llama", write_base("llama", tmp_path))
    words.add_tokens(["<b_2>"])
    with pytest.raises(DataError, match="'<b_2>' already"):
        extend(model, words, SIZES)


def test_a_piece_of_the_prompt_must_be_a_token() -> None:
    words = tokenizer()
    found = prompt_ids(words, PromptText(prefix=("<s>", "word3"), separator=("word0",), suffix=()))
    assert found == {"prefix_ids": (3, 7), "item_separator_ids": (4,), "suffix_ids": ()}
    with pytest.raises(RecipeError, match="'word999', which is not a token"):
        prompt_ids(words, PromptText(suffix=("word999",)))


def test_the_decoder_starts_as_the_config_says(tmp_path: Path) -> None:
    write_base("t5", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"decoder_start_token_id": 7}))
    assert decoder_prefix(tmp_path, "seq2seq") == (7,)
    assert decoder_prefix(tmp_path, "causal") == ()
    del config["decoder_start_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="decoder_start_token_id"):
        decoder_prefix(tmp_path, "seq2seq")


def quantized(work: Path) -> Path:
    (work / "quantize").mkdir()
    (work / "quantize" / "quantizer.json").write_text(json.dumps({"codebook_sizes": SIZES}))
    return work


def test_the_stage_writes_a_base_whose_config_and_tokenizer_agree(family: str, base: Path, tmp_path: Path) -> None:
    architecture = "seq2seq" if family.startswith("t5") else "causal"
    progress = RememberingProgress()
    made = recipe(model={"architecture": architecture, "checkpoint": str(base)}, prompt={"prefix": ["word1"]})
    out = run_stage(vocabulary.STAGE, made, quantized(tmp_path), progress)
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["use_cache"] is False
    assert config["vocab_size"] == BEFORE + ADDED
    assert read_item_tokens(out).codebook_sizes == SIZES
    assert read_item_tokens(out).highest_id == BEFORE + ADDED - 1
    assert f"{BEFORE} base + {ADDED} item tokens" in progress.lines[0]
    rows = load_trainable(out / "model", architecture).get_input_embeddings().weight.detach()[BEFORE:]
    assert rows.std() > 0.1


def test_the_stage_makes_a_model_from_a_config_and_repeats_itself(tmp_path: Path) -> None:
    made = recipe(model={"architecture": "seq2seq", "config": {"model_type": "t5", "d_model": 16, "num_layers": 1}})
    first = run_stage(vocabulary.STAGE, made, quantized(tmp_path))
    (tmp_path / "again").mkdir()
    torch.rand(3)
    again = run_stage(vocabulary.STAGE, made, quantized(tmp_path / "again"))
    for name in ("model/model.safetensors", "model/config.json", "model/tokenizer.json", "item_tokens.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert read_item_tokens(first).token_ids[0] == (4, 5, 6, 7)
    rows = load_trainable(first / "model", "seq2seq").get_input_embeddings().weight.detach()
    assert 0.5 < rows[4:].std() / rows[:4].std() < 2


@pytest.mark.parametrize(("model_type", "tied"), [("t5", True), ("llama", False)])
def test_item_tokens_may_begin_at_the_vectors_of_their_items(model_type: str, tied: bool, tmp_path: Path) -> None:
    config = {"model_type": model_type, "tie_word_embeddings": tied}
    config |= {"d_model": 16, "num_layers": 1} if tied else {"hidden_size": 16, "num_attention_heads": 2}
    model = {"architecture": "seq2seq" if tied else "causal", "config": config}
    work = quantized(tmp_path)
    codes = {f"code_{level}": [item % size for item in range(40)] for level, size in enumerate(SIZES)}
    pl.DataFrame({"item_id": [f"i{item:02}" for item in range(40)], **codes}).write_parquet(
        work / "quantize" / "semantic_ids.parquet"
    )
    (work / "embed").mkdir()
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    vectors[:, 0] += 4 * (np.arange(40) % SIZES[0])  # alike are those with neighbouring first codes
    save_file({"vectors": vectors}, work / "embed" / "vectors.safetensors")
    out = run_stage(vocabulary.STAGE, recipe(model={**model, "semantic_start": 0.4}), work)
    made = load_trainable(out / "model", model["architecture"])
    for weight in (made.get_input_embeddings().weight, made.get_output_embeddings().weight):
        first = weight.detach()[list(read_item_tokens(out).token_ids[0])]
        near = torch.cdist(first, first)
        assert (near[0].argsort() == torch.arange(SIZES[0])).all()
        assert 0.2 < first.std() < 0.8
    assert is_tied(made) is tied


def test_the_stage_finds_a_wrong_prompt_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'Recommend'"):
        run_stage(vocabulary.STAGE, recipe(prompt={"prefix": ["Recommend"]}), quantized(tmp_path))


@pytest.fixture(params=["seq2seq", "causal"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> BaseBundle:
    return BaseBundle.open(tiny_bundle(tmp_path / "base", TinyShape(request.param)))


def test_a_bundles_tokens_are_not_added_twice(published: BaseBundle) -> None:
    model, words, tokens = grown(published, published.manifest.codebook_sizes)
    assert tokens.token_ids == published.manifest.item_token_ids
    before = load_bundle(published.path)
    assert len(words) == before.model.config.vocab_size == model.config.vocab_size
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_a_level_that_became_wider_gets_the_tokens_that_it_lacks(published: BaseBundle) -> None:
    *others, last = published.manifest.codebook_sizes
    torch.manual_seed(0)
    model, words, tokens = grown(published, (*others, last + 3))
    had = published.manifest.item_token_ids
    assert tokens.token_ids[:-1] == had[:-1]
    assert tokens.token_ids[-1][:last] == had[-1]
    new = list(tokens.token_ids[-1][last:])
    assert words.convert_ids_to_tokens(new) == ["<c_4>", "<c_5>", "<c_6>"]
    assert model.get_input_embeddings().weight.shape[0] > max(new)
    before = load_bundle(published.path).model
    for old, matrix in zip(matrices(before), matrices(model), strict=True):
        assert torch.equal(matrix[: old.shape[0]], old)
        assert torch.pdist(matrix[new].float()).min() > 0  # drawn, each by itself
    assert is_tied(model) == is_tied(before)
