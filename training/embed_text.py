"""Item vectors from text: TF-IDF reduced by an SVD, or a pretrained encoder.

Knows columns and words. Knows nothing of codes. Shapes: N items, D dimensions.
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.errors import DataError, RecipeError, one_line
from training.embed_part import FloatArray, Part, reduce
from training.progress import Progress
from training.recipe_data import EncoderPart, TfidfPart

# One letter is a word too: films are called "M" and "Z".
WORD = r"(?u)\b\w+\b"


def text_columns(items: pa.Table, wanted: Sequence[str] | None) -> list[str]:
    """The metadata columns to read as text.

    Args:
        items: The table of the prepare stage.
        wanted: Names from the recipe; None for all columns of strings or lists.

    Raises:
        DataError: A column is absent, or there is none.
    """
    names = [name for name in items.column_names if name != "item_id"]
    for name in wanted or ():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            nearest = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"
            raise DataError(f"embed reads the column {name!r}, which the items do not have; {nearest}")
    if wanted:
        return list(wanted)
    found = [
        name for name in names if pa.types.is_string(kind := items.schema.field(name).type) or pa.types.is_list(kind)
    ]
    if not found:
        raise DataError(
            "the items have no text to embed; give [prepare.items] a text column, "
            'or set embed.parts = ["collaborative"]'
        )
    return found


def item_texts(items: pa.Table, columns: Sequence[str]) -> list[str]:
    """The text of each item: its columns one after the other, lists with spaces between."""
    parts = [items[name].to_pylist() for name in columns]
    return [" ".join(_words(value) for value in row).strip() for row in zip(*parts, strict=True)]


def tfidf_again(items: pa.Table, described: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> FloatArray:
    """Vectors of other items, as `tfidf` would have made them of its own: same words, same rarity, same dimensions.

    Args:
        items: A table with the columns of `described`.
        described: The description that `tfidf` gave.
        tensors: Its tensors.

    Returns:
        (N, D) float32; a zero row where no word is known.

    Raises:
        DataError: A column is absent.
    """
    vectorizer = TfidfVectorizer(token_pattern=WORD, sublinear_tf=True, vocabulary=described["vocabulary"])
    vectorizer.idf_ = tensors["tfidf.idf"].astype(np.float64)
    weights = vectorizer.transform(item_texts(items, text_columns(items, described["columns"])))
    return np.asarray(weights @ tensors["tfidf.components"].T.astype(np.float64), dtype=np.float32)


def tfidf(items: pa.Table, part: TfidfPart, seed: int) -> Part:
    """Word counts weighted by rarity, in `part.dimensions` dimensions. Deterministic for a seed.

    Raises:
        DataError: There is no text at all.
    """
    columns = text_columns(items, part.columns)
    vectorizer = TfidfVectorizer(token_pattern=WORD, sublinear_tf=True, max_features=part.max_words)
    try:
        weights: sparse.csr_matrix = vectorizer.fit_transform(item_texts(items, columns))
    except ValueError as error:
        raise DataError(f"the columns {', '.join(columns)} hold no words at all; name others in embed.tfidf") from error
    reduced = reduce(weights, part.dimensions, seed)
    description = {
        "columns": columns,
        "token_pattern": WORD,
        "vocabulary": vectorizer.get_feature_names_out().tolist(),
        "kept": round(reduced.kept, 4),
    }
    tensors = {"tfidf.idf": vectorizer.idf_.astype(np.float32), "tfidf.components": reduced.components}
    return Part(reduced.vectors, description, tensors)


def encoder(items: pa.Table, part: EncoderPart, progress: Progress) -> Part:
    """Vectors of a pretrained encoder, a zero row for an item without text.

    Raises:
        DataError: The model cannot be loaded.
        RecipeError: The library is not installed.
    """
    columns = text_columns(items, part.columns)
    texts = item_texts(items, columns)
    filled = [row for row, text in enumerate(texts) if text]
    # Texts of like length in one batch: little padding.
    filled.sort(key=lambda row: len(texts[row]))
    model = _Transformer(part) if part.library == "transformers" else _SentenceTransformer(part)
    batches = [filled[start : start + part.batch_size] for start in range(0, len(filled), part.batch_size)]
    vectors = np.zeros((len(texts), 0), dtype=np.float32)
    with progress.task("encoding", total=len(filled)) as advance:
        for batch in batches:
            encoded = model.encode([texts[row] for row in batch])
            if not vectors.shape[1]:
                vectors = np.zeros((len(texts), encoded.shape[1]), dtype=np.float32)
            vectors[batch] = encoded
            advance(len(batch))
    description = {"columns": columns, "model": part.model, "library": part.library, "max_tokens": part.max_tokens}
    return Part(vectors, description)


class _Transformer:
    """Any AutoModel, its last hidden states averaged over the tokens of the text."""

    def __init__(self, part: EncoderPart) -> None:
        from transformers import AutoModel, AutoTokenizer  # seconds to import, and only this part needs it

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(part.model)
            model = AutoModel.from_pretrained(part.model, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise _not_loaded(part.model, error) from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self._model = encoder.to(self._device).eval()
        self._max_tokens = part.max_tokens

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> FloatArray:
        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        mask = inputs["attention_mask"]
        states = self._model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state  # (B, T, D)
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        vectors: FloatArray = mean.float().cpu().numpy()
        return vectors


class _SentenceTransformer:
    """A sentence-transformers model with its own pooling."""

    def __init__(self, part: EncoderPart) -> None:
        try:
            library = import_module("sentence_transformers")
        except ImportError as error:
            raise RecipeError(
                'embed.encoder.library = "sentence-transformers" needs that package: install genrec[encoders], '
                'or set library = "transformers"'
            ) from error
        try:
            self._model: Any = library.SentenceTransformer(part.model)
        except (OSError, ValueError) as error:
            raise _not_loaded(part.model, error) from error
        self._model.max_seq_length = part.max_tokens

    def encode(self, texts: Sequence[str]) -> FloatArray:
        encoded = self._model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)
        vectors: FloatArray = np.asarray(encoded, dtype=np.float32)
        return vectors


def _not_loaded(model: str, error: Exception) -> DataError:
    return DataError(
        f"embed.encoder.model = {model!r} cannot be loaded, neither as a directory nor from the hub: {one_line(error)}"
    )


def _words(value: object) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
