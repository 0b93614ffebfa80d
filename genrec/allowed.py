"""Which items a request may be answered with, and how many of them lie below a node of the trie.

Rows are leaves in order, so a node owns a contiguous range of rows and one subtraction says whether its branch is
alive. Knows rows only: no item ids, no tokens, no tensors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

_LOOKED_AT_FIRST = 1 << 10


@dataclass(frozen=True, eq=False)
class ItemMask:
    """A set of rows that many requests share: the items in stock, or what a predicate lets through.

    Its identity is its key: engines keep what they derive from a mask for as long as the mask lives.

    Attributes:
        allowed: ``(N,)`` bool.
    """

    allowed: npt.NDArray[np.bool_]

    @classmethod
    def everything(cls, num_items: int) -> Self:
        """All rows of a catalog."""
        return cls(np.ones(num_items, dtype=bool))

    def __len__(self) -> int:
        return int(self.before[-1])

    @property
    def num_items(self) -> int:
        """N, the size of the catalog."""
        return len(self.allowed)

    @property
    def is_everything(self) -> bool:
        """Whether no row is missing."""
        return len(self) == self.num_items

    @cached_property
    def before(self) -> npt.NDArray[np.int32]:
        """``(N + 1,)`` prefix sum: how many allowed rows are smaller than each row."""
        before = np.zeros(len(self.allowed) + 1, dtype=np.int32)
        np.cumsum(self.allowed, dtype=np.int32, out=before[1:])
        return before

    def count(self, first: npt.NDArray[np.integer], last: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """How many allowed rows have ``first <= row < last``, elementwise."""
        return np.asarray(self.before[last] - self.before[first], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class AllowedItems:
    """The rows of a mask but a few.

    Attributes:
        mask: shared between requests.
        excluded: rows of the mask that this request may not be answered with, int64, ascending, distinct.
    """

    mask: ItemMask
    excluded: npt.NDArray[np.int64]

    @classmethod
    def all_but(cls, rows: Iterable[int], mask: ItemMask) -> Self:
        """Every row of `mask` except `rows` (repeats and rows outside the mask are fine)."""
        distinct = np.unique(np.fromiter(rows, dtype=np.int64))
        return cls(mask, distinct[mask.allowed[distinct]])

    def __len__(self) -> int:
        return len(self.mask) - len(self.excluded)

    def count(self, first: npt.NDArray[np.integer], last: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """How many allowed items have ``first <= row < last``, elementwise."""
        gone = np.searchsorted(self.excluded, last) - np.searchsorted(self.excluded, first)
        return self.mask.count(first, last) - gone

    def select(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The allowed ones among `rows`, in the order given."""
        return rows[self.mask.allowed[rows] & ~np.isin(rows, self.excluded)]

    def first(self, rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """The first `count` of `select(rows)`, without a look at the others; all of them if there are fewer."""
        start, size, found = 0, _LOOKED_AT_FIRST, rows[:0]
        while len(found) < count and start < len(rows):
            found = np.concatenate((found, self.select(rows[start : start + size])))
            start, size = start + size, 2 * size
        return found[:count]
