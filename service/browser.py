"""Looking around in the catalog: search by title, neighbours in the tree of semantic IDs. No model.

N items, L levels. Both are one pass of vectorised comparisons over a column; calls may block for milliseconds at
millions of items, so they run off the event loop.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec.semantic_id import Catalog

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
    """Search and neighbours over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        by_popularity = catalog.most_popular()
        self._rank = np.empty(len(catalog), dtype=np.int32)  # of each row among all, the most popular first
        self._rank[by_popularity] = np.arange(len(catalog), dtype=np.int32)
        column = title_column(catalog)
        titles = catalog.item_ids if column is None else catalog.metadata.column(column)
        titles = titles.cast(pa.large_string())  # a bundle may hold either kind, and an Arrow kernel takes one
        nothing, space = (pa.scalar(text, pa.large_string()) for text in ("", " "))
        # A space in front: where a word begins is then a plain substring.
        self._titles = pc.binary_join_element_wise(nothing, pc.utf8_lower(pc.fill_null(titles, nothing)), space)

    def search(self, query: str, limit: int) -> Matches:
        """Items whose title (whose id, in a catalog without text) holds every word of `query`.

        The item of that very id comes first, then titles with the words at the beginnings of words, each by popularity.
        """
        words = query.lower().split()[:MAX_WORDS]
        if not words:
            return Matches(self.catalog.most_popular()[:limit].tolist(), len(self.catalog))
        rows = self._ranked(words)
        named = self.catalog.row(query.strip())
        if named is None:
            return Matches(rows[:limit].tolist(), len(rows))
        others = rows[rows != named]
        return Matches([named, *others[: limit - 1].tolist()], len(others) + 1)

    def similar(self, row: int, limit: int) -> list[Neighbour]:
        """Items that share at least the first code: most shared codes first, then by popularity, then by row."""
        neighbours: list[Neighbour] = []
        inner = (row, row + 1)
        for shared, (start, end) in reversed(list(enumerate(self._prefix_ranges(row), start=1))):
            ring = np.concatenate((np.arange(start, inner[0]), np.arange(inner[1], end)))
            ring = ring[np.lexsort((ring, -self.catalog.popularity[ring]))]
            neighbours += [Neighbour(int(other), shared) for other in ring[: limit - len(neighbours)]]
            inner = (start, end)
        return neighbours

    def _prefix_ranges(self, row: int) -> list[tuple[int, int]]:
        # Rows are in path order: the rows below a prefix are a range, and each level narrows the one above.
        ranges = []
        start, end = 0, len(self.catalog)
        for level in range(self.catalog.num_levels):
            same = np.flatnonzero(self.catalog.codes[start:end, level] == self.catalog.codes[row, level])
            start, end = start + int(same[0]), start + int(same[-1]) + 1
            ranges.append((start, end))
        return ranges

    def _ranked(self, words: list[str]) -> npt.NDArray[np.int64]:
        """The rows whose title holds every word, in the order of `search`."""
        rows, titles = np.arange(len(self.catalog)), self._titles
        for word in sorted(words, key=len, reverse=True):  # long words are rare ones: the others see fewer titles
            held = pc.match_substring(titles, word)
            rows, titles = rows[_flags(held)], titles.filter(held)
        later = np.zeros(len(rows), dtype=np.int64)
        for word in words:
            later |= ~_flags(pc.match_substring(titles, f" {word}"))
        return rows[np.argsort(self._rank[rows] + later * len(self.catalog))]


def _flags(mask: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """A mask without nulls, as NumPy has it."""
    flags: npt.NDArray[np.bool_] = np.asarray(mask)
    return flags


def title_column(catalog: Catalog) -> str | None:
    """The column that names an item to people: `title`, else `name`, else the first with text."""
    texts = [column for column, kind in catalog.columns.items() if kind == "string"]
    return next((name for name in ("title", "name", *texts) if name in texts), None)
