"""Which items of a bundle may be answered at all: the ones that are in stock now.

A bundle never changes; what is sold out does, many times a day. Knows rows only.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from genrec.allowed import ItemMask
from genrec.errors import InputError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Availability:
    """One state of the catalog.

    Attributes:
        version: grows by one with every change; every answer carries it.
        mask: the rows that may be answered.
    """

    version: int
    mask: ItemMask

    @property
    def items_off(self) -> int:
        """How many rows may not be answered."""
        return self.mask.num_items - len(self.mask)

    def changed(self, *, off: Rows, on: Rows) -> Self:
        """The next state. Repeats, and rows that are off or on already, are fine.

        Args:
            off: rows to switch off, int64.
            on: rows to switch on, int64.

        Raises:
            InputError: a row is in both, or the catalog does not have it.
        """
        allowed = self.mask.allowed.copy()
        for rows in (off, on):
            if rows.size and not 0 <= rows.min() <= rows.max() < len(allowed):
                raise InputError(f"rows to switch must be from 0 to {len(allowed) - 1}.")
        allowed[on] = True
        allowed[off] = False
        if not allowed[on].all():
            raise InputError("a row cannot be switched both off and on.")
        return type(self)(self.version + 1, ItemMask(allowed))
