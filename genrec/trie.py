"""The item-token trie: which token may follow which, so that generation cannot leave the catalog.

Two forms of the same set. On disk a marisa-trie, compact and readable by any tool; for decoding flat int32 arrays, one
pair a level, where the children of a node are a slice. Knows no item ids and no PyTorch.

Shapes: N items, L levels. The nodes of level l are the distinct prefixes of length l in sorted order (level 0 is the
root), so a node at level l + 1 is at the same time an edge of level l: child ids need not be stored.
CSR lookup after STATIC, Su et al. 2026 (arXiv:2602.22647), with implicit child ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import marisa_trie
import numpy as np
import numpy.typing as npt

from genrec.errors import DataError
from genrec.semantic_id import first_unordered

_KEYS_AT_ONCE = 1 << 16  # of a marisa-trie that is compared: a few MB of Python objects

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """All token paths, sorted; leaf number = row of the sorted paths.

    Attributes:
        paths: ``(N, L)`` int32, sorted by row, distinct.
        indptr: L arrays; ``indptr[l]`` int32 ``(nodes of level l + 1,)``: the children of node i of level l are the
            nodes ``indptr[l][i] … indptr[l][i + 1] - 1`` of level l + 1.
        token: L arrays; ``token[l]`` int32: the token that leads to each node of level l + 1, ascending among siblings.
        first_leaf: L + 1 arrays; node i of level l owns the leaves ``first_leaf[l][i] … first_leaf[l][i + 1] - 1``.
    """

    paths: Int32Array
    indptr: tuple[Int32Array, ...]
    token: tuple[Int32Array, ...]
    first_leaf: tuple[Int32Array, ...]

    @classmethod
    def from_sorted(cls, paths: Int32Array) -> Self:
        """Build the arrays from paths that are already in order, vectorised.

        Raises:
            DataError: there is no path, or the rows are not strictly ascending (unsorted, or two items with one path).
        """
        if paths.ndim != 2 or paths.dtype != np.int32 or 0 in paths.shape:
            raise DataError(f"paths must be int32 of shape (items, levels), got {paths.dtype} {paths.shape}.")
        _check_ascending(paths)
        num_items, num_levels = paths.shape
        # differs[i, l]: row i has another prefix of length l + 1 than row i - 1
        differs = np.ones((num_items, num_levels), dtype=bool)
        np.logical_or.accumulate(paths[1:] != paths[:-1], axis=1, out=differs[1:])
        starts = [np.zeros(1, dtype=np.int64)]  # the root owns every leaf
        starts += [np.flatnonzero(differs[:, level]) for level in range(num_levels)]
        first_leaf = tuple(np.append(start, num_items).astype(np.int32) for start in starts)
        indptr = tuple(
            np.searchsorted(starts[level + 1], first_leaf[level]).astype(np.int32) for level in range(num_levels)
        )
        token = tuple(paths[starts[level + 1], level] for level in range(num_levels))
        return cls(paths, indptr, token, first_leaf)

    @property
    def num_items(self) -> int:
        """N, the number of leaves."""
        return int(self.paths.shape[0])

    @property
    def num_levels(self) -> int:
        """L, the depth of every leaf."""
        return int(self.paths.shape[1])

    def children(self, level: int, node: int) -> slice:
        """The nodes of level + 1 below `node` of `level`; also the slice of ``token[level]`` that leads to them."""
        return slice(int(self.indptr[level][node]), int(self.indptr[level][node + 1]))

    def descend(self, prefix: Sequence[int]) -> int | None:
        """The node that a token prefix leads to (at level ``len(prefix)``), or None if no item starts so."""
        node = 0
        for level, token in enumerate(prefix):
            below = self.children(level, node)
            siblings = self.token[level][below]
            place = int(np.searchsorted(siblings, token))
            if place == len(siblings) or siblings[place] != token:
                return None
            node = below.start + place
        return node

    def to_marisa(self) -> marisa_trie.BinaryTrie:
        """The same set as a marisa-trie: every key is a path and its row, each number 4 bytes big-endian."""
        return marisa_trie.BinaryTrie(_marisa_keys(self.paths))

    def agrees_with(self, marisa: marisa_trie.BinaryTrie) -> bool:
        """Whether a marisa-trie holds exactly these paths with these rows."""
        keys, found = marisa.iterkeys(), np.zeros(self.num_items, dtype=bool)
        while chunk := list(islice(keys, _KEYS_AT_ONCE)):
            if {len(key) for key in chunk} != {4 * (self.num_levels + 1)}:
                return False
            numbers = np.frombuffer(b"".join(chunk), dtype=">u4").reshape(len(chunk), -1)
            rows = numbers[:, -1].astype(np.int64)
            if rows.max() >= self.num_items or not np.array_equal(self.paths[rows], numbers[:, :-1]):
                return False
            found[rows] = True
        return bool(found.all())


def sort_order(paths: Int32Array) -> npt.NDArray[np.int64]:
    """The order that sorts paths as a trie needs them: ``paths[sort_order(paths)]`` ascends."""
    return np.lexsort(paths.T[::-1])


def _marisa_keys(paths: Int32Array) -> list[bytes]:
    rows = np.arange(len(paths), dtype=np.int32)[:, None]
    keys = np.hstack([paths, rows]).astype(">u4")
    return [key.tobytes() for key in keys]


def _check_ascending(paths: Int32Array) -> None:
    row = first_unordered(paths)
    if row is None:
        return
    path = paths[row].tolist()
    if path == paths[row - 1].tolist():
        raise DataError(f"rows {row - 1} and {row} have one and the same token path {path}.")
    raise DataError(f"row {row} is out of order: its token path {path} sorts before the row above.")
