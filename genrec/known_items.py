"""What a catalog has of a list of item ids."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from genrec.semantic_id import Catalog


@dataclass(frozen=True, slots=True)
class KnownItems:
    """A list of ids, told apart.

    Attributes:
        item_ids: those that the catalog has, in order, repeats included.
        rows: theirs.
        unknown: those that it does not have, in order, repeats included.
    """

    item_ids: tuple[str, ...]
    rows: tuple[int, ...]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, item_ids: Iterable[str], catalog: Catalog) -> Self:
        """Look ids up."""
        found = [(item_id, catalog.row(item_id)) for item_id in item_ids]
        known = [(item_id, row) for item_id, row in found if row is not None]
        return cls(
            tuple(item_id for item_id, _ in known),
            tuple(row for _, row in known),
            tuple(item_id for item_id, row in found if row is None),
        )
