"""Rows of unequal length, one after the other in one array: what batches are put together from without a loop.

Knows nothing of what the numbers mean. Shapes: n numbers, R rows, B lines of a batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from training.batches import Ints, Rows


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of int32.

    Attributes:
        values: ``(n,)`` all rows, one after the other.
        sizes: ``(R,)`` how long each is.
    """

    values: Rows
    sizes: Ints

    @classmethod
    def of(cls, rows: Sequence[npt.ArrayLike]) -> "Ragged":
        """Rows one after the other."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        sizes = np.array([len(array) for array in arrays], dtype=np.int64)
        return cls(np.concatenate([*arrays, np.empty(0, dtype=np.int32)]), sizes)

    @classmethod
    def stacked(cls, parts: Iterable["Ragged"]) -> "Ragged":
        """The rows of several, one after the other."""
        listed = list(parts)
        return cls(np.concatenate([part.values for part in listed]), np.concatenate([part.sizes for part in listed]))

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def starts(self) -> Ints:
        """``(R,)`` where each row begins."""
        return np.cumsum(self.sizes) - self.sizes

    def rows(self) -> list[Rows]:
        """Each row, a view."""
        return np.split(self.values, np.cumsum(self.sizes)[:-1])

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Ragged":
        """The same rows with some of their numbers left out.

        Args:
            chosen: ``(n,)`` which numbers stay.
        """
        stay = np.concatenate([[0], np.cumsum(chosen)])
        return Ragged(self.values[chosen], stay[self.starts + self.sizes] - stay[self.starts])

    def lines(self, rows: Ints, counts: Ints) -> tuple[Ints, Ints]:
        """Rows end to end, several a line.

        Args:
            rows: ``(n,)`` which, those of one line after those of another.
            counts: ``(B,)`` how many each line has.

        Returns:
            numbers ``(B, T)``, 0 beyond each line, and lengths ``(B,)``.
        """
        sizes = self.sizes[rows]
        values = self.values[np.repeat(self.starts[rows], sizes) + ranges(sizes)]
        ends = np.concatenate([[0], np.cumsum(sizes)])[np.cumsum(counts)]
        lengths: Ints = np.diff(ends, prepend=0)
        matrix = np.zeros((len(counts), int(lengths.max())), dtype=np.int64)
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = values
        return matrix, lengths


def ranges(counts: Ints) -> Ints:
    """0 … count - 1 for each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
