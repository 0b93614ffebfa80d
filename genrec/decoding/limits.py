"""What each request of a batch may be answered with, where the search is: which nodes of the trie lead on to something.

Two parts, as in `genrec.allowed`. A mask, which many requests share, becomes a table of living nodes that stays on the
device for as long as the mask is in use. The few rows that a request excludes beyond it kill few nodes, mostly leaves:
these are listed for each request.

Shapes: R requests, W beams, K children, L levels, n_l nodes of level l, E listed nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genrec.allowed import AllowedItems, ItemMask
from genrec.trie import ItemTrie

NOWHERE = np.iinfo(np.int64).max
"""Pads the lists of dead nodes; no node has this number."""

_TABLE_BYTES = 256 << 20
_MAX_MASKS = 64


@dataclass(frozen=True, eq=False)
class Limits:
    """The limits of one batch.

    Attributes:
        tables: L tensors ``(slots, n_{l+1})`` bool, the living nodes of each mask; None if no request has a mask.
        slots: ``(R, 1, 1)`` int64, each request's row of the tables.
        dead: L tensors ``(R, E)`` int64, ascending: nodes that exclusions have emptied; None where there is none.
    """

    tables: Sequence[Tensor] | None
    slots: Tensor
    dead: Sequence[Tensor | None]

    def narrow(self, level: int, nodes: Tensor, alive: Tensor) -> Tensor:
        """Which of the children ``(R, W, K)``, nodes of level + 1, are alive and lead to an allowed item."""
        if self.tables is not None:
            table = self.tables[level]
            alive = alive & table.view(-1)[self.slots * table.shape[1] + nodes]
        dead = self.dead[level]
        if dead is not None:
            flat = nodes.flatten(1)
            place = torch.searchsorted(dead, flat).clamp_(max=dead.shape[1] - 1)
            alive = alive & (dead.gather(1, place) != flat).view_as(nodes)
        return alive


class LimitTables:
    """The tables of living nodes, one row a mask, the least recently used one replaced.

    Attributes:
        capacity: how many masks a batch may mix.
    """

    def __init__(self, trie: ItemTrie, device: torch.device | str) -> None:
        """Nothing is allocated before the first mask."""
        self._trie = trie
        self._device = device
        num_nodes = sum(map(len, trie.token))
        self.capacity = int(np.clip(_TABLE_BYTES // num_nodes, 2, _MAX_MASKS))
        # By last use, oldest first. Weak: a filter or a state of the stock that nobody asks for any more is let go.
        self._slots: WeakKeyDictionary[ItemMask, int] = WeakKeyDictionary()
        self._tables: list[Tensor] | None = None

    def limits(self, allowed: Sequence[AllowedItems]) -> Limits:
        """The limits of a batch whose requests have at most `capacity` masks.

        A batch in which every item is allowed but for exclusions needs no table at all.
        """
        dead = self._dead(allowed)
        slots = torch.zeros(len(allowed), 1, 1, dtype=torch.int64)
        if all(items.mask.is_everything for items in allowed):
            return Limits(None, slots, dead)
        for row, mask in enumerate([items.mask for items in allowed]):
            slots[row] = self._slot(mask)
        return Limits(self._tables, slots.to(self._device), dead)

    @cached_property
    def _parents(self) -> list[npt.NDArray[np.int32]]:
        return _parents_of(self._trie)

    def nodes_above(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """For each level from the root to the leaves, the node that owns each row."""
        narrow = rows.astype(np.int32)
        return [np.searchsorted(first_leaf, narrow, side="right") - 1 for first_leaf in self._trie.first_leaf]

    def _slot(self, mask: ItemMask) -> int:
        slot = self._slots.pop(mask, None)
        if slot is None:
            free = set(range(self.capacity)).difference(self._slots.values())
            slot = min(free) if free else self._slots.pop(next(iter(self._slots)))
            self._fill(slot, mask)
        self._slots[mask] = slot
        return slot

    def _fill(self, slot: int, mask: ItemMask) -> None:
        if self._tables is None:
            self._tables = [
                torch.zeros(self.capacity, len(token), dtype=torch.bool, device=self._device)
                for token in self._trie.token
            ]
        for table, first_leaf in zip(self._tables, self._trie.first_leaf[1:], strict=True):
            before = mask.before[first_leaf]
            table[slot].copy_(torch.from_numpy(before[1:] > before[:-1]))

    def _dead(self, allowed: Sequence[AllowedItems]) -> list[Tensor | None]:
        by_request = [_dead_nodes(self._trie, self._parents, items) for items in allowed]
        return [self._padded(lists) for lists in zip(*by_request, strict=True)]

    def _padded(self, lists: Sequence[npt.NDArray[np.int64]]) -> Tensor | None:
        longest = max(map(len, lists))
        if longest == 0:
            return None
        padded = np.full((len(lists), longest), NOWHERE)
        for row, nodes in enumerate(lists):
            padded[row, : len(nodes)] = nodes
        return torch.from_numpy(padded).to(self._device)


def _dead_nodes(
    trie: ItemTrie, parents: Sequence[npt.NDArray[np.int32]], allowed: AllowedItems
) -> list[npt.NDArray[np.int64]]:
    """For each level below the root, the nodes that have allowed items in the mask and lose them all by exclusion.

    Args:
        trie: the items.
        parents: as `_parents_of`.
        allowed: of one request.
    """
    dead = [np.empty(0, dtype=np.int64)] * trie.num_levels
    # for each excluded row the node of the level that owns it, ascending
    above: npt.NDArray[np.integer] = allowed.excluded
    for level in range(trie.num_levels, 0, -1):
        if not len(above):
            break
        starts = np.flatnonzero(np.diff(above, prepend=-1))
        nodes, lost = above[starts], np.diff(starts, append=len(above))
        first_leaf = trie.first_leaf[level]
        emptied = nodes[lost == allowed.mask.count(first_leaf[nodes], first_leaf[nodes + 1])]
        if not len(emptied):
            break  # a node with a living child lives
        dead[level - 1] = emptied.astype(np.int64)
        above = parents[level - 1][above]
    return dead


def _parents_of(trie: ItemTrie) -> list[npt.NDArray[np.int32]]:
    """L arrays ``(n_{l+1},)``: the node of level l above each node of level l + 1."""
    return [np.repeat(np.arange(len(level) - 1, dtype=np.int32), np.diff(level)) for level in trie.indptr]
