"""Kinds of cases: by how often the target occurs in training, and by how long the history is.

Knows ranges and counts, not methods.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import IntArray

TARGET_COUNTS = (0, 1, 5, 10, 20, 50, 100, 500)
"""Where the buckets of training counts begin; the first is that of cold items, which training has not seen."""

HISTORY_LENGTHS = (1, 5, 10, 20, 50, 100)
"""Where the buckets of history lengths begin."""


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """Some of the cases.

    Attributes:
        label: Its range, such as ``5-9``.
        chosen: (C,) bool, which cases.
    """

    label: str
    chosen: npt.NDArray[np.bool_]


def buckets(values: IntArray, starts: Sequence[int]) -> Iterator[Bucket]:
    """The buckets that have any case, from low to high; together they have each case once.

    Args:
        values: (C,) one number a case, none below the first start.
        starts: Where each bucket begins, ascending; the last one has no end.
    """
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        chosen = values >= start if end is None else (values >= start) & (values < end)
        if chosen.any():
            label = f"{start}+" if end is None else str(start) if end == start + 1 else f"{start}-{end - 1}"
            yield Bucket(label, chosen)
