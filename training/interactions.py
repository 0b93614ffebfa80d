"""Interactions in memory, and what is done with them before a split: order, filters, k-core.

Ids are numbers here, so that a row costs about thirty bytes however long its ids are. Knows neither files nor splits.
Shapes: n interactions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError

IntArray = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """n interactions, one array a column.

    Attributes:
        user_ids: The ids that `user` points into, sorted.
        item_ids: The ids that `item` points into, sorted.
        user: (n,) int32.
        item: (n,) int32.
        time: (n,) int64, milliseconds since 1970 UTC.
        rating: (n,) float64, NaN where there is none; None if the data have no ratings.
        event: (n,) int32, points into `event_names`, -1 where there is none; None if the data have no events.
        event_names: Sorted.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    user: IntArray
    item: IntArray
    time: npt.NDArray[np.int64]
    rating: npt.NDArray[np.float64] | None = None
    event: IntArray | None = None
    event_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Mask | npt.NDArray[np.intp]) -> "Interactions":
        """The rows of a mask, or at the given places in the given order; ids keep their numbers."""
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            time=self.time[rows],
            rating=None if self.rating is None else self.rating[rows],
            event=None if self.event is None else self.event[rows],
        )

    @property
    def user_count(self) -> int:
        """Users with at least one interaction."""
        return int(np.count_nonzero(np.bincount(self.user, minlength=1)))

    @property
    def item_count(self) -> int:
        """Items with at least one interaction."""
        return int(np.count_nonzero(np.bincount(self.item, minlength=1)))


def in_order(interactions: Interactions, seed: int) -> Interactions:
    """Sort by user, then time; ties of one user by a hash of (seed, user, item).

    The order of the input has no say: files sorted by item would otherwise leak which tied item comes next.
    """
    users = _hashes(interactions.user_ids)[interactions.user]
    items = _hashes(interactions.item_ids)[interactions.item]
    ties = _mix(_mix(users + np.uint64(seed)) ^ items)
    # Rows that agree in user, time and item differ in event or rating only.
    rest = [column for column in (interactions.rating, interactions.event) if column is not None]
    return interactions.take(np.lexsort((*rest, ties, interactions.time, interactions.user)))


def rated_at_least(interactions: Interactions, minimum: float) -> Interactions:
    """Drop interactions of a lower rating, or of none."""
    if interactions.rating is None:
        raise DataError("minimum_rating is set but the data have no rating column")
    return interactions.take(interactions.rating >= minimum)


def without_duplicates(interactions: Interactions, policy: Literal["keep", "first", "last"]) -> Interactions:
    """Of one user's interactions with one item leave all, the first or the last. The rows must be `in_order`."""
    if policy == "keep" or not len(interactions):
        return interactions
    pairs = interactions.user.astype(np.int64) * len(interactions.item_ids) + interactions.item
    if policy == "first":
        _, places = np.unique(pairs, return_index=True)
    else:
        _, from_end = np.unique(pairs[::-1], return_index=True)
        places = len(pairs) - 1 - from_end
    return interactions.take(np.sort(places))


def core(interactions: Interactions, user_core: int, item_core: int) -> Interactions:
    """Drop users and items with fewer interactions, in turn, until every one left has enough."""
    kept = interactions
    while True:
        enough = _often(kept.user, user_core) & _often(kept.item, item_core)
        if enough.all():
            return kept
        kept = kept.take(enough)


def _often(codes: IntArray, minimum: int) -> Mask:
    return (np.bincount(codes, minlength=1) >= minimum)[codes]


def _hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each id that no library version changes."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
