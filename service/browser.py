"""Looking around in the catalog: search by title, neighbours in the tree of semantic IDs. No model.

N items, L levels. Calls may block for milliseconds at millions of items, so they run off the event loop.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genrec.semantic_id import Catalog
from genrec.trie import ItemTrie
from service.catalog_tree import CatalogTree
from service.title_index import TitleIndex, folded_words

MAX_WORDS = 8
"""Words of a query that count."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows that match, the best first, and how many there are in all."""

    rows: list[int]
    total: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A row and how many leading codes it shares with the row that was asked for."""

    row: int
    shared_levels: int


class CatalogBrowser:
    """Search, neighbours and the tree of one catalog.

    Attributes:
        catalog: whose items are looked at.
        tree: the tree of semantic IDs.
    """

    def __init__(self, catalog: Catalog, trie: ItemTrie) -> None:
        """Index the titles, which takes seconds for millions; `trie` is of the catalog's rows."""
        self.catalog = catalog
        self._by_popularity = catalog.most_popular()
        self._rank = np.empty(len(catalog), dtype=np.int32)  # of each row among all, the most popular first
        self._rank[self._by_popularity] = np.arange(len(catalog), dtype=np.int32)
        column = title_column(catalog)
        titles = catalog.item_ids if column is None else catalog.metadata.column(column)
        # Called by rank in the index, titles come out of it the most popular first.
        self._index = TitleIndex(titles if column else pa.chunked_array([titles]), self._rank)
        self.tree = CatalogTree(catalog, trie, self._rank)

    @property
    def index_bytes(self) -> int:
        """What the search holds in memory."""
        return self._index.num_bytes

    def search(self, query: str, limit: int) -> Matches:
        """Items in whose title (whose id, in a catalog without text) each word of `query` begins a word.

        A word that begins none in the whole catalog matches inside words. The item of that very id comes first, then
        the most popular.
        """
        if not query.strip():
            return Matches(self._by_popularity[:limit].tolist(), len(self.catalog))
        ranks = self._index.matches(folded_words(query, MAX_WORDS))
        named = self.catalog.row(query.strip())
        if named is None:
            return Matches(self._by_popularity[ranks[:limit]].tolist(), len(ranks))
        others = ranks[ranks != self._rank[named]]
        return Matches([named, *self._by_popularity[others[: limit - 1]].tolist()], len(others) + 1)

    def similar(self, row: int, limit: int) -> list[Neighbour]:
        """Items that share at least the first code: most shared codes first, then by popularity, then by row."""
        neighbours: list[Neighbour] = []
        inner = (row, row + 1)
        for shared in range(self.catalog.num_levels, 0, -1):
            start, end = self.tree.range_around(row, shared)
            ranks = np.concatenate((self._rank[start : inner[0]], self._rank[inner[1] : end]))
            wanted = min(limit - len(neighbours), len(ranks))
            best = np.sort(np.partition(ranks, wanted - 1)[:wanted]) if wanted else ranks[:0]
            neighbours += [Neighbour(other, shared) for other in self._by_popularity[best].tolist()]
            inner = (start, end)
        return neighbours


def title_column(catalog: Catalog) -> str | None:
    """The column that names an item to people: `title`, else `name`, else the first with text."""
    texts = [column for column, kind in catalog.columns.items() if kind == "string"]
    return next((name for name in ("title", "name", *texts) if name in texts), None)
