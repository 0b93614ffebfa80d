"""How much memory a catalog takes in a process that serves it: every array, its type and its length.

The arithmetic of docs/operations.md, held against the arrays of a real bundle by its test. Knows sizes only; the model
is not counted, nor Python and its libraries.

Shapes: N items, L levels, n_l nodes of level l of the trie (n_0 = 1, n_L = N).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import expm1, log1p, prod

from genrec.filters import MAX_MASK_BYTES, MAX_MASKS

TABLE_BYTES = 256 << 20
"""Of `genrec.decoding.limits`: what its tables of living nodes share, as far as two of them fit."""
MAX_TABLES = 64
MASK = 5
"""Bytes an item: a bool, and an int32 of how many come before it."""
MAX_ID_BYTES = (1 << 31) - 1
"""Of all item ids: loading puts them into one Arrow array, whose offsets are int32 (pyarrow 26: "offset overflow")."""

INT16, INT32, INT64 = 2, 4, 8


@dataclass(frozen=True)
class CatalogSize:
    """A catalog by its numbers.

    Attributes:
        num_items: N.
        codebook_sizes: codes a level, of L levels; codes are taken to be used evenly, which gives the most nodes.
        id_bytes: of an item id, in UTF-8.
        metadata_bytes: of an item's other columns, as Arrow holds them.
        list_values: how many texts an item has in columns of lists.
        id_trie_bytes: of an item in `catalog/ids.marisa`.
        title_index_bytes: of an item in the title search.
    """

    num_items: int
    codebook_sizes: Sequence[int] = (256, 256, 256, 256)
    id_bytes: float = 13.0
    metadata_bytes: float = 60.0
    list_values: float = 1.5
    id_trie_bytes: float = 5.0
    title_index_bytes: float = 46.0

    @property
    def loads(self) -> bool:
        """Whether one process can hold the ids, however much memory it has."""
        return self.id_bytes * self.num_items <= MAX_ID_BYTES

    @cached_property
    def nodes(self) -> list[float]:
        """n_1 … n_L, as expected of codes drawn evenly: of m prefixes, m · (1 - (1 - 1/m)^N) are somebody's."""
        prefixes = [prod(self.codebook_sizes[: level + 1]) for level in range(len(self.codebook_sizes) - 1)]
        used = [-m * expm1(self.num_items * log1p(-1 / m)) if m > 1 else 1.0 for m in prefixes]
        return [*used, float(self.num_items)]


@dataclass(frozen=True)
class Part:
    """What one part takes.

    Attributes:
        name: what it is.
        arrays: the sum, to be read.
        bytes: its value.
    """

    name: str
    arrays: str
    bytes: float


def resident(size: CatalogSize) -> list[Part]:
    """The parts that stay as long as the bundle is served; without filters and items off."""
    items, levels = size.num_items, len(size.codebook_sizes)
    below, above = sum(size.nodes), 1 + sum(size.nodes[:-1])  # nodes of levels 1 to L, and of levels 0 to L - 1
    return [
        Part("item ids", "int32 + text, N", (INT32 + size.id_bytes) * items),
        Part("codes", "int32, N·L", INT32 * items * levels),
        Part("popularity", "int64, N", INT64 * items),
        Part("metadata", "as Arrow holds it, N", size.metadata_bytes * items),
        Part("ids.marisa", "marisa, N", size.id_trie_bytes * items),
        Part("token paths", "int32, N·L", INT32 * items * levels),
        Part("trie: children", "int32, nodes above the leaves", INT32 * above),
        Part("trie: tokens", "int32, nodes below the root", INT32 * below),
        Part("trie: first leaves", "int32, all nodes", INT32 * (1 + below)),
        Part("engine: columns", "int16, nodes below the root", INT16 * below),
        Part("engine: parents", "int32, nodes below the root", INT32 * below),
        Part("what may be answered", "bool + int32, N", MASK * items),
        Part("order by popularity", "int64 + int32 + int64, N", (INT64 + INT32 + INT64) * items),
        Part("title search", "words, N", size.title_index_bytes * items),
    ]


def limits(size: CatalogSize) -> list[Part]:
    """The most that filters, and items that are off, add: budgets, which one mask or two tables may exceed."""
    items, below = size.num_items, sum(size.nodes)
    tables = min(max(TABLE_BYTES // below, 2), MAX_TABLES)
    masks = max(min(float(MAX_MASK_BYTES), MAX_MASKS * MASK * items), MASK * items)
    return [
        Part("masks of filters", "bool + int32, N, of each", masks),
        Part("tables of living nodes", "bool, nodes below the root, of each", tables * below),
        Part("lists as numbers", "int32, N + values", INT32 * (1 + size.list_values) * items),
        Part("items off", "bool + int32, N", MASK * items),
    ]


def total_bytes(size: CatalogSize) -> float:
    """All of it."""
    return sum(part.bytes for part in (*resident(size), *limits(size)))
