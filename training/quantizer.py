"""What a quantizer is given and what it gives: codes that are not yet unique.

Knows shapes. Knows nothing of tokens or files. Shapes: N items, D dimensions, L levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.int32]


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
        codebooks: L arrays (size, D) float32, or none if the codes do not come from vectors.
        notes: What the user should be told.
    """

    codes: CodeArray
    sizes: tuple[int, ...]
    description: Mapping[str, object]
    codebooks: Sequence[FloatArray] = ()
    notes: Sequence[str] = field(default_factory=tuple)


class Quantizer(Protocol):
    """Anything that gives every item its codes."""

    def quantize(self, items: ItemVectors) -> Codes:
        """Assign codes; the same input gives the same codes."""
