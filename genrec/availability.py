"""Which items of a bundle may be answered at all: the ones that are in stock now.

A bundle never changes; what is sold out does, many times a day. Knows rows only.
"""

from dataclasses import dataclass

from genrec.allowed import ItemMask


@dataclass(frozen=True, eq=False)
class Availability:
    """One state of the catalog.

    Attributes:
        version: grows by one with every change; every answer carries it.
        mask: the rows that may be answered.
    """

    version: int
    mask: ItemMask
