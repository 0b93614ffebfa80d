"""What a quantizer is given, what it gives (codes that are not yet unique), and what stays of it for new items.

Knows shapes and the files of the quantize stage. Knows nothing of tokens. Shapes: N items, D dimensions, L levels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError, one_line
from training.codebooks import Codebooks
from training.quantize_free import ByChance, ByVector, Seeker, place

FloatArray = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.int32]

DESCRIPTION, CODEBOOKS = "quantizer.json", "codebooks.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class ItemVectors:
    """The items to quantize, in the order of ``items.parquet``.

    Attributes:
        item_ids: N ids.
        vectors: (N, D) float32; D is 0 when the recipe embeds nothing.
    """

    item_ids: Sequence[str]
    vectors: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Codes of all items.

    Attributes:
        codes: (N, L) int32; several items may share a row.
        sizes: L code counts; a level's codes lie in ``range(size)``.
        description: How they were made, for ``quantizer.json``.
        codebooks: Of L levels, or None if the codes have nothing to do with vectors.
        notes: What the user should be told.
    """

    codes: CodeArray
    sizes: tuple[int, ...]
    description: Mapping[str, object]
    codebooks: Codebooks | None = None
    notes: Sequence[str] = field(default_factory=tuple)


class Quantizer(Protocol):
    """Anything that gives every item its codes."""

    def quantize(self, items: ItemVectors) -> Codes:
        """Assign codes; the same input gives the same codes."""


@dataclass(frozen=True, slots=True, eq=False)
class SavedQuantizer:
    """What gives semantic IDs to items that did not exist when the quantizer was fitted, and moves no published one.

    Attributes:
        method: Of the recipe.
        sizes: L code counts, the collision level with its spare codes included.
        has_collision_level: Whether the last level only tells items of equal codes apart.
        codebooks: Of all levels but the collision level; None for codes that have nothing to do with vectors.
        seed: Of random codes.
        directory: Where it was read, for sentences.
    """

    method: str
    sizes: tuple[int, ...]
    has_collision_level: bool
    codebooks: Codebooks | None
    seed: int
    directory: Path

    @classmethod
    def load(cls, directory: Path) -> "SavedQuantizer":
        """Read it from the quantize stage's output, or from the ``quantizer/`` of a bundle.

        Raises:
            DataError: The files are absent, broken, or do not fit together.
        """
        described = _describe(directory)
        books = Codebooks.load(directory / CODEBOOKS) if (directory / CODEBOOKS).is_file() else None
        try:
            sizes = tuple(int(size) for size in described["codebook_sizes"])
            own, method = bool(described["has_collision_level"]), str(described["method"])
            seed = int(described.get("seed", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{directory / DESCRIPTION} does not describe a quantizer: {one_line(error)}") from error
        if books is not None and books.sizes != sizes[: len(sizes) - own]:
            raise DataError(
                f"{directory}: {CODEBOOKS} has levels of {list(books.sizes)} codes, which {DESCRIPTION} has as "
                f"{list(sizes)}{' with a collision level' if own else ''}; the two files are not of one run"
            )
        return cls(method, sizes, own, books, seed, directory)

    def assign(self, vectors: FloatArray, taken: CodeArray) -> CodeArray:
        """A semantic ID for each new item: the nearest that is free.

        An item goes to the codes that the codebooks give it. There it takes the smallest free code of the collision
        level or, without one, the nearest free code of the last level. Where all are taken, it goes to the next-nearest
        prefix. Items are placed in order, so an earlier one has the better choice.

        Args:
            vectors: (M, D) float32, made as the vectors of the other items were.
            taken: (N, L) int32, codes of all published items.

        Returns:
            (M, L) int32, unique, and none of `taken`.

        Raises:
            DataError: No code is free near an item, the shapes do not fit, or nothing leads from vectors to codes.
        """
        if taken.ndim != 2 or taken.shape[1] != len(self.sizes):
            raise DataError(
                f"published codes of shape {taken.shape} are not of the {len(self.sizes)} levels saved here"
            )
        return place(self._seeker(vectors, taken), len(vectors), taken, self.sizes)

    def _seeker(self, vectors: FloatArray, taken: CodeArray) -> Seeker:
        if self.codebooks is not None:
            points = self.codebooks.encode(vectors)
            trained = np.bincount(taken[:, -1], minlength=self.sizes[-1]) > 0
            level = self.sizes[-1] if self.has_collision_level else None
            return ByVector(self.codebooks, points, self.codebooks.assign(points), level, trained)
        if self.method == "random":
            return ByChance(self.sizes, self.has_collision_level, self.seed + len(taken))
        raise DataError(
            f"{self.directory} has no codebooks: its codes came from a file, and no vectors were made of the items. "
            "Give the new items codes in that file, or list a part in embed.parts so that vectors lead to codes, and "
            "train again"
        )


def _describe(directory: Path) -> Mapping[str, Any]:
    path = directory / DESCRIPTION
    if not path.is_file():
        raise DataError(
            f"{directory} has no {DESCRIPTION}, so nothing says how its codes were made; a bundle of a checkpoint that "
            "was trained elsewhere has none"
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(described, dict):
        raise DataError(f"{path} is not one JSON object")
    return described
