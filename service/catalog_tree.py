"""The tree of semantic IDs, to be walked by people: what lies below a prefix. No model.

N items, L levels. The rows below a prefix are a range, which the trie tells; nothing is looked for item by item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genrec.semantic_id import Catalog, SemanticId
from genrec.trie import ItemTrie

MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Branch:
    """A child of a prefix.

    Attributes:
        semantic_id: the prefix and one code more.
        items: how many begin so.
        popularity: of all of them together.
        examples: rows of the most popular, at most `MAX_EXAMPLES`.
    """

    semantic_id: SemanticId
    items: int
    popularity: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subtree:
    """What lies below a prefix.

    Attributes:
        prefix: which.
        items: how many begin so.
        branches: its children, the most popular first, ties by row; as many as were asked for.
        total: how many children there are.
    """

    prefix: SemanticId
    items: int
    branches: tuple[Branch, ...]
    total: int


class CatalogTree:
    """The tree of one catalog."""

    def __init__(self, catalog: Catalog, trie: ItemTrie, rank: npt.NDArray[np.int32]) -> None:
        """Adds popularity up once.

        Args:
            catalog: the items.
            trie: theirs, of the same rows.
            rank: ``(N,)`` the place of each row among all, the most popular first.
        """
        self._catalog = catalog
        self._trie = trie
        self._rank = rank
        self._popularity_before = np.concatenate(([0], np.cumsum(catalog.popularity)))

    def below(self, prefix: SemanticId, limit: int) -> Subtree | None:
        """What lies below `prefix`, its `limit` most popular children; None if no item begins so."""
        node = self._descend(prefix)
        if node is None:
            return None
        level = len(prefix)
        leaves = self._trie.first_leaf[level]
        items = int(leaves[node + 1] - leaves[node])
        if level == self._trie.num_levels:
            return Subtree(prefix, items, (), 0)
        below = self._trie.children(level, node)
        edges = self._trie.first_leaf[level + 1][below.start : below.stop + 1]
        popularity = np.diff(self._popularity_before[edges])
        order = np.argsort(-popularity, kind="stable")[:limit]
        examples = self._most_popular(edges)
        branches = tuple(
            Branch(
                semantic_id=(*prefix, int(self._catalog.codes[edges[place], level])),
                items=int(edges[place + 1] - edges[place]),
                popularity=int(popularity[place]),
                examples=tuple(rows[place] for rows in examples[: edges[place + 1] - edges[place]]),
            )
            for place in order.tolist()
        )
        return Subtree(prefix, items, branches, below.stop - below.start)

    def range_around(self, row: int, level: int) -> tuple[int, int]:
        """The first row, and that after the last, of those that share the first `level` codes with `row`."""
        edges = self._trie.first_leaf[level]
        node = int(np.searchsorted(edges, np.int32(row), side="right")) - 1
        return int(edges[node]), int(edges[node + 1])

    def _descend(self, prefix: SemanticId) -> int | None:
        """The node of a prefix. Codes have no order among siblings, so all of these are looked at."""
        if len(prefix) > self._trie.num_levels:
            return None
        node = 0
        for level, code in enumerate(prefix):
            below = self._trie.children(level, node)
            first_rows = self._trie.first_leaf[level + 1][below]
            [places] = np.nonzero(self._catalog.codes[first_rows, level] == code)
            if not len(places):
                return None
            node = below.start + int(places[0])
        return node

    def _most_popular(self, edges: npt.NDArray[np.int32]) -> Sequence[list[int]]:
        """Rows: the most popular of each range between edges, then the second of each, and so on.

        A range that has no more gives anything.
        """
        first = int(edges[0])
        rank = self._rank[first : int(edges[-1])].copy()
        by_rank, found = self._catalog.most_popular(), []
        nobody = len(by_rank)
        for _ in range(MAX_EXAMPLES):
            best = np.minimum.reduceat(rank, edges[:-1] - first)
            rows = by_rank[np.minimum(best, nobody - 1)]
            rank[rows[best < nobody] - first] = nobody
            found.append(rows.tolist())
        return found
