"""Switching items off and on: first on the disk, then in the answers, then acknowledged.

What is off is kept as item ids, so it outlives the bundle. Knows no HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from genrec.availability import Availability, Rows
from genrec.errors import InputError, RequestError
from genrec.recommender import Recommender
from genrec.semantic_id import Catalog
from service.inference import InferenceThread
from service.off_list import OffList
from service.state_directory import StateDirectory

FILE = "items-off"
MAX_UNKNOWN_OFF = 1_000_000
"""Ids that are off and in no bundle here: all that an endless stream of wrong ids can cost."""


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """Where the catalog stands.

    Attributes:
        version: of the availability.
        items_off: items of the bundle served that are off.
        unknown_items_off: ids that are off and that this bundle does not have.
    """

    version: int
    items_off: int
    unknown_items_off: int


class CatalogSwitch:
    """The one place that changes which items are off. Safe to call from several threads."""

    def __init__(self, directory: StateDirectory) -> None:
        """Check what the directory says.

        Raises:
            InputError: its file is damaged.
        """
        self._directory = directory
        self._unknown_off: frozenset[str] = frozenset()
        self._stored()

    def restore(self, recommender: Recommender) -> Recommender:
        """`recommender` with everything off that was off when the last change was acknowledged.

        Raises:
            InputError: the file is damaged.
        """
        stored = self._stored()
        if stored is None:
            return recommender
        known, unknown = _rows(recommender.bundle.catalog, stored.item_ids.to_pylist())
        availability = recommender.availability.changed(off=known, on=np.empty(0, np.int64))
        self._unknown_off = frozenset(unknown)
        return replace(recommender, availability=replace(availability, version=stored.version))

    def status(self, recommender: Recommender) -> CatalogStatus:
        """Where the catalog that `recommender` answers from stands."""
        availability = recommender.availability
        return CatalogStatus(availability.version, availability.items_off, len(self._unknown_off))

    def change(self, inference: InferenceThread, off: Sequence[str], on: Sequence[str]) -> tuple[CatalogStatus, int]:
        """Switch items off and on, all together or none. What changes nothing takes no new version.

        When this returns the change is on the disk, and every request that comes from now on is answered under it.

        Args:
            inference: whose answers are meant.
            off: item ids; those that the bundle does not have stay off in one that does.
            on: item ids.

        Returns:
            Where the catalog stands now, and how many of the ids the bundle does not have.

        Raises:
            RequestError: an id is in both, or too many are off that the bundle does not have.
            NotStored: the change could not be written down; nothing has changed.
            NotReady: there is nothing to change yet, or no more.
        """
        _check_distinct(off, on)
        with inference.changing() as recommender:
            catalog = recommender.bundle.catalog
            (rows_off, unknown_off), (rows_on, unknown_on) = _rows(catalog, off), _rows(catalog, on)
            known = recommender.availability.changed(off=rows_off, on=rows_on)
            unknown = self._unknown_off.union(unknown_off).difference(unknown_on)
            if len(unknown) > MAX_UNKNOWN_OFF:
                raise RequestError(f"At most {MAX_UNKNOWN_OFF} items that the bundle does not have may be off.", "/off")
            if unknown != self._unknown_off or (known.mask.allowed != recommender.availability.mask.allowed).any():
                self._directory.write(FILE, _off_list(known, catalog, unknown).to_bytes())
                self._unknown_off = unknown
                recommender = replace(recommender, availability=known)
            status = self.status(recommender)  # counts the mask here, so that the inference thread need not
            inference.replace(recommender)
            return status, len(unknown_off) + len(unknown_on)

    def _stored(self) -> OffList | None:
        content = self._directory.read(FILE)
        try:
            return None if content is None else OffList.from_bytes(content)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the state file {self._directory.path / FILE} is damaged: {error}; put a copy of it in its place, "
                "or remove it to begin with every item on."
            ) from error


def _rows(catalog: Catalog, item_ids: Sequence[str]) -> tuple[Rows, list[str]]:
    """The rows of the ids that the catalog has, and the ids that it does not have."""
    rows = [catalog.row(item_id) for item_id in item_ids]
    known = np.fromiter((row for row in rows if row is not None), dtype=np.int64)
    return known, [item_id for item_id, row in zip(item_ids, rows, strict=True) if row is None]


def _off_list(availability: Availability, catalog: Catalog, unknown: frozenset[str]) -> OffList:
    known = catalog.item_ids.filter(pa.array(~availability.mask.allowed))
    return OffList.of(availability.version, known, sorted(unknown))


def _check_distinct(off: Sequence[str], on: Sequence[str]) -> None:
    both = set(off).intersection(on)
    if both:
        place = next(place for place, item_id in enumerate(on) if item_id in both)
        raise RequestError("An item cannot be switched both off and on.", f"/on/{place}")
