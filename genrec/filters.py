"""The filter of a request: what callers may ask of the items they are answered with, and the masks that come of it.

Knows ids, columns and rows; no tokens, no tensors.
"""

import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.allowed import ItemMask
from genrec.predicates import Every, OneOf, Predicate, conditions, parse_predicate
from genrec.semantic_id import Catalog

MAX_MASKS = 64
MAX_MASK_BYTES = 256 << 20
_BYTES_AN_ITEM = 5  # a bool, and an int32 of the prefix sum


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items a request may be answered with; both have to allow an item.

    Attributes:
        include_ids: nothing but these; ids that the catalog does not have are ignored. None allows all.
        where: conditions on metadata columns, as JSON gives them: ``{"year": {"gte": 1990}}``. The grammar is in
            docs/serving.md. None allows all.
    """

    include_ids: Sequence[str] | None = None
    where: Mapping[str, object] | None = None

    def predicate(self, columns: Mapping[str, str]) -> Predicate | None:
        """What `where` says in terms of a catalog's `columns`.

        Raises:
            RequestError: it cannot be asked of them; the pointer starts with /filter/where.
        """
        return None if self.where is None else parse_predicate(self.where, columns, "/filter/where")


@dataclass(frozen=True, slots=True)
class _Key:
    """What a filter says, however it was written."""

    include_ids: frozenset[str] | None
    predicate: Predicate | None

    def mask(self, catalog: Catalog, available: ItemMask) -> ItemMask:
        """The available rows that it lets through."""
        allowed = available.allowed
        if self.predicate is not None:
            allowed = allowed & self.predicate.over(catalog.filterable).yes
        if self.include_ids is not None:
            rows = [row for item_id in self.include_ids if (row := catalog.row(item_id)) is not None]
            included = np.zeros_like(allowed)
            included[rows] = allowed[rows]
            allowed = included
        return ItemMask(allowed)

    @property
    def num_bytes(self) -> int:
        """About what it holds in memory."""
        leaves = conditions(self.predicate) if self.predicate is not None else ()
        values = [value for leaf in leaves if isinstance(leaf, OneOf) for value in leaf.values]
        return sum(map(sys.getsizeof, (*(self.include_ids or ()), *values)))


_WITHOUT_CONDITION = (_Key(None, None), _Key(None, Every(frozenset())))


class FilterMasks:
    """The masks of the filters that were asked for lately, within one state of the catalog.

    A filter that comes again gets the same mask, with all that engines have derived from it. Safe to call from several
    threads: that a mask is worked out in one keeps no other from those that are there.
    """

    def __init__(
        self, catalog: Catalog, available: ItemMask, *, max_masks: int = MAX_MASKS, max_bytes: int = MAX_MASK_BYTES
    ) -> None:
        """Nothing is computed before it is asked for.

        Args:
            catalog: what is filtered.
            available: what may be answered without a filter.
            max_masks: how many are kept, the least recently used go first.
            max_bytes: what they may hold together; the newest is kept in any case.
        """
        self._catalog = catalog
        self._available = available
        self._max_masks = max_masks
        self._max_bytes = max_bytes
        self._masks: OrderedDict[_Key, ItemMask] = OrderedDict()
        self._sizes: dict[_Key, int] = {}
        self._one_at_a_time = threading.Lock()

    def knows(self, asked: Filter | None) -> bool:
        """Whether `mask` has nothing to work out.

        Raises:
            RequestError: the filter does not fit the catalog.
        """
        key = self._key(asked)
        return key in _WITHOUT_CONDITION or key in self._masks

    def mask(self, asked: Filter | None) -> ItemMask:
        """The available rows that a filter lets through; without a filter, the mask of all that are available.

        Raises:
            RequestError: the filter does not fit the catalog.
        """
        key = self._key(asked)
        if key in _WITHOUT_CONDITION:
            return self._available
        mask = self._masks.get(key)
        if mask is None:
            mask = key.mask(self._catalog, self._available)
        with self._one_at_a_time:
            mask = self._masks.setdefault(key, mask)  # another thread may have been first
            self._sizes[key] = _BYTES_AN_ITEM * len(self._catalog) + key.num_bytes
            self._masks.move_to_end(key)
            self._make_room()
        return mask

    def _key(self, asked: Filter | None) -> _Key:
        if asked is None:
            return _Key(None, None)
        include_ids = None if asked.include_ids is None else frozenset(asked.include_ids)
        return _Key(include_ids, asked.predicate(self._catalog.columns))

    def _make_room(self) -> None:
        while len(self._masks) > 1 and (
            len(self._masks) > self._max_masks or sum(self._sizes.values()) > self._max_bytes
        ):
            oldest, _ = self._masks.popitem(last=False)
            del self._sizes[oldest]
