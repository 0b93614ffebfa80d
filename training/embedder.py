"""The saved embedder: vectors for items that did not exist when it was fitted.

Knows the files of the embed stage. What each part does with a new item stands in ``embed_*``.
Shapes: M items, D dimensions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from genrec.errors import DataError, one_line
from training.embed_given import given
from training.embed_part import FloatArray, Standard, unit
from training.embed_predicted import Ridge
from training.embed_text import encoder, tfidf_again
from training.progress import Progress, SilentProgress
from training.recipe_data import EncoderPart, GivenPart

DESCRIPTION, TENSORS = "embedder.json", "embedder.safetensors"
COLLABORATIVE = "collaborative"


@dataclass(frozen=True, slots=True, eq=False)
class SavedEmbedder:
    """Makes a vector of a new item as the embed stage made them of its own.

    Text parts come from the saved words or the same encoder. Given parts come from a file. The collaborative part of an
    item nobody has touched is predicted from the others.

    Attributes:
        parts: What ``embedder.json`` says of each, in the order of their dimensions.
        tensors: Of all parts.
        directory: Where it was read, for sentences.
    """

    parts: Sequence[Mapping[str, Any]]
    tensors: Mapping[str, FloatArray]
    directory: Path

    @classmethod
    def load(cls, directory: Path) -> "SavedEmbedder":
        """Read it from the embed stage's output, or from the ``quantizer/`` of a bundle.

        Raises:
            DataError: The files are absent or broken.
        """
        try:
            parts = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))["parts"]
            tensors = load_file(directory / TENSORS) if (directory / TENSORS).is_file() else {}
            listed = all(isinstance(part["part"], str) and isinstance(part["weight"], float) for part in parts)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(f"{directory} holds no embedder that can be read: {one_line(error)}") from error
        if not listed:
            raise DataError(f"{directory / DESCRIPTION} does not describe the parts of an embedder")
        return cls(parts, tensors, directory)

    @property
    def dimensions(self) -> int:
        """D; 0 where the recipe embeds nothing."""
        return sum(int(part["dimensions"]) for part in self.parts)

    def embed(
        self, items: pa.Table, vectors_file: GivenPart | None = None, progress: Progress | None = None
    ) -> FloatArray:
        """Vectors in the order of `items`.

        Args:
            items: ``item_id`` and the columns that the text parts read, as in ``items.parquet``.
            vectors_file: Where the given part of these items is; not given, the file of the recipe.
            progress: The display, for an encoder.

        Returns:
            (M, D) float32.

        Raises:
            DataError: A column or file is absent, an item has nothing to go by, or nothing predicts a part.
        """
        if not self.parts:
            return np.zeros((len(items), 0), dtype=np.float32)
        made: dict[str, FloatArray] = {}
        with threadpool_limits(limits=1):  # as in the embed stage: sums in another order differ in the last bits
            for part in self.parts:
                if part["part"] != COLLABORATIVE:
                    made[part["part"]] = unit(self._made(part, items, vectors_file, progress or SilentProgress()))
            self._refuse_empty(made, items)
            standard = {name: self._standard(name, vectors) for name, vectors in made.items()}
            if any(part["part"] == COLLABORATIVE for part in self.parts):
                standard[COLLABORATIVE] = self._standard(COLLABORATIVE, self._predicted(standard))
        return np.concatenate([standard[part["part"]] for part in self.parts], axis=1)

    def _made(
        self, part: Mapping[str, Any], items: pa.Table, vectors_file: GivenPart | None, progress: Progress
    ) -> FloatArray:
        try:
            match part["part"]:
                case "tfidf":
                    return tfidf_again(items, part, self.tensors)
                case "encoder":
                    return encoder(items, _section(EncoderPart, part), progress).vectors
                case "given":
                    return given(items["item_id"].to_pylist(), vectors_file or _section(GivenPart, part)).vectors
        except (KeyError, ValidationError) as error:
            raise DataError(
                f"{self.directory / DESCRIPTION} does not say how its part {part['part']!r} was made: "
                f"{one_line(error)}; it was written by another version, so train again"
            ) from error
        raise DataError(f"{self.directory / DESCRIPTION} has a part {part['part']!r}, which this version does not know")

    def _predicted(self, standard: Mapping[str, FloatArray]) -> FloatArray:
        ridge = Ridge.of_tensors(self.tensors)
        if ridge is None:
            raise DataError(
                f"the embedder of {self.directory} has nothing to predict the collaborative part of a new item from; "
                "add a part that reads the item itself to embed.parts, such as tfidf, and train again"
            )
        return ridge.predict(np.concatenate(list(standard.values()), axis=1))

    def _standard(self, name: str, vectors: FloatArray) -> FloatArray:
        part = next(part for part in self.parts if part["part"] == name)
        try:
            standard = Standard(self.tensors[f"{name}.mean"], float(part["spread"]))
        except KeyError as error:
            raise DataError(f"{self.directory} was written by another version, without {error}; train again") from error
        if vectors.shape[1] != len(standard.mean):
            raise DataError(
                f"the part {name!r} of the new items has {vectors.shape[1]} dimensions, that of the others "
                f"{len(standard.mean)}; make both with the same model"
            )
        return standard.apply(vectors, part["weight"])

    def _refuse_empty(self, made: Mapping[str, FloatArray], items: pa.Table) -> None:
        empty = np.ones(len(items), dtype=bool)
        for vectors in made.values():
            empty &= ~vectors.any(axis=1)
        if made and empty.any():
            ids = items["item_id"].take(np.flatnonzero(empty)[:5]).to_pylist()
            named = ", ".join(map(repr, ids)) + (", …" if empty.sum() > 5 else "")
            raise DataError(
                f"{int(empty.sum()):,} new items have nothing to be embedded by ({named}): no text, no word that the "
                "embedder knows, no vector in the given file; give them some, or leave them out"
            )


def _section(kind: Any, part: Mapping[str, Any]) -> Any:  # noqa: ANN401  (one of two sections)
    return kind.model_validate({name: part[name] for name in kind.model_fields if name in part})
