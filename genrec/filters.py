"""Which items a request may be answered with, and how many of them lie below a node of the trie.

Rows are leaves in order, so a node owns a contiguous range of rows and one subtraction says whether its branch is
alive. Knows rows only: no item ids, no tokens, no tensors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class AllowedItems:
    """All items of a catalog but a few.

    Attributes:
        num_items: N, the size of the catalog.
        excluded: rows that may not be answered, int64, ascending, distinct.
    """

    num_items: int
    excluded: npt.NDArray[np.int64]

    @classmethod
    def all_but(cls, num_items: int, rows: Iterable[int]) -> Self:
        """Every item except `rows` (repeats are fine)."""
        return cls(num_items, np.unique(np.fromiter(rows, dtype=np.int64)))

    def __len__(self) -> int:
        return self.num_items - len(self.excluded)

    def count(self, first: npt.NDArray[np.integer], last: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """How many allowed items have ``first <= row < last``, elementwise."""
        gone = np.searchsorted(self.excluded, last) - np.searchsorted(self.excluded, first)
        return np.asarray(last - first - gone, dtype=np.int64)

    def select(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The allowed ones among `rows`, in the order given."""
        return rows[~np.isin(rows, self.excluded)]
