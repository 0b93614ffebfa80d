"""Semantic IDs and the catalog: which item has which tuple of codes.

Knows nothing of tokens, models or files. Shapes: N items, L levels.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import marisa_trie
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import DataError

SemanticId = tuple[int, ...]
"""One code a level, coarse to fine."""

RESERVED_COLUMNS = ("item_id", "popularity")

_KEYS_AT_ONCE = 1 << 16  # of a trie that is compared: a few MB of Python objects, where all keys would be hundreds


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items that exist: a bijection between item ids and semantic IDs, in row order.

    A row is an item's index everywhere: the leaf number of the trie, the line of `catalog/items.parquet`.

    Attributes:
        item_ids: N distinct ids, non-empty, any Unicode but control characters.
        codes: ``(N, L)`` int32, distinct rows, every code >= 0.
        popularity: ``(N,)`` int64, how often the item occurs in the training interactions.
        metadata: N rows of any further columns (title, …) of string, number, boolean or list-of-string type.
    """

    item_ids: pa.StringArray
    codes: npt.NDArray[np.int32]
    popularity: npt.NDArray[np.int64]
    metadata: pa.Table

    def __post_init__(self) -> None:
        _check_item_ids(self.item_ids)
        if self.codes.ndim != 2 or self.codes.dtype != np.int32 or self.codes.shape[1] < 1:
            raise DataError(f"codes must be int32 of shape (items, levels), got {self.codes.dtype} {self.codes.shape}.")
        for name, rows in (
            ("codes", len(self.codes)),
            ("popularity", len(self.popularity)),
            ("metadata", self.metadata.num_rows),
        ):
            if rows != len(self.item_ids) and (name != "metadata" or self.metadata.num_columns):
                raise DataError(f"the catalog has {len(self.item_ids)} item ids but {rows} rows of {name}.")
        _check_codes(self.codes, self.item_ids)
        for column, kind in zip(self.metadata.column_names, self.metadata.schema.types, strict=True):
            if column in RESERVED_COLUMNS or column.startswith("code_"):
                raise DataError(f"a metadata column may not be named {column!r}: the catalog uses that name itself.")
            column_type(kind, column)

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def num_levels(self) -> int:
        """L, the length of every semantic ID."""
        return int(self.codes.shape[1])

    def row(self, item_id: str) -> int | None:
        """The item's index, or None if the catalog has no such item."""
        if "\0" in item_id:  # no item's; marisa-trie would read only what stands before it
            return None
        try:
            rows = self.row_of_id.get(item_id)
        except UnicodeEncodeError:  # a lone surrogate names no item
            return None
        return int(rows[0][0]) if rows else None

    def item_id(self, row: int) -> str:
        """The id of the item in `row`."""
        return str(self.item_ids[row].as_py())

    def semantic_id(self, row: int) -> SemanticId:
        """The L codes of the item in `row`."""
        return tuple(self.codes[row].tolist())

    def describe(self, row: int, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """The metadata of the item in `row`: all columns, or only `fields` (names must be in `columns`)."""
        names = self._values if fields is None else fields
        return {name: self._values[name][row].as_py() for name in names}

    @cached_property
    def _values(self) -> dict[str, pa.Array | pa.ChunkedArray]:
        # Looking a column up in a table, and a row up in chunks, takes three times as long as reading the value.
        columns = zip(self.metadata.column_names, self.metadata.columns, strict=True)
        return {name: column.chunk(0) if column.num_chunks == 1 else column for name, column in columns}

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Metadata column -> "string", "integer", "number", "boolean" or "list of strings"."""
        return {field.name: column_type(field.type, field.name) for field in self.metadata.schema}

    @cached_property
    def filterable(self) -> pa.Table:
        """`metadata` with the texts in its lists as numbers into a dictionary, in which they are found faster."""
        table = self.metadata
        for place, (name, kind) in enumerate(zip(table.column_names, table.schema.types, strict=True)):
            if column_type(kind, name) == "list of strings":
                make = pa.large_list if pa.types.is_large_list(kind) else pa.list_
                column = table.column(name).cast(make(pa.dictionary(pa.int32(), kind.value_type)))
                table = table.set_column(place, name, column)
        return table

    def most_popular(self) -> npt.NDArray[np.int64]:
        """All rows, most popular first, ties by row; sorted once, not to be written to."""
        return self._most_popular

    @cached_property
    def _most_popular(self) -> npt.NDArray[np.int64]:
        rows = np.argsort(-self.popularity, kind="stable")
        rows.flags.writeable = False  # every caller gets this one
        return rows

    @cached_property
    def row_of_id(self) -> marisa_trie.RecordTrie:
        """item_id -> row, two to six bytes an item where a dictionary takes a hundred."""
        return build_id_trie(self.item_ids.to_pylist())

    def with_id_trie(self, id_trie: marisa_trie.RecordTrie) -> "Catalog":
        """The same items, looked up in a trie that was built before and that `id_trie_agrees` with them."""
        twin = copy.copy(self)  # not `replace`: the items have been checked
        vars(twin)["row_of_id"] = id_trie  # where `cached_property` keeps what it would build
        return twin

    def take(self, order: npt.NDArray[np.int64]) -> "Catalog":
        """The same items with row `order[i]` moved to row i."""
        metadata = self.metadata.take(order) if self.metadata.num_columns else self.metadata
        return Catalog(self.item_ids.take(pa.array(order)), self.codes[order], self.popularity[order], metadata)


def build_id_trie(item_ids: Iterable[str]) -> marisa_trie.RecordTrie:
    """A marisa trie from item id to row, one little-endian uint32 an id."""
    return marisa_trie.RecordTrie("<I", ((item_id, (row,)) for row, item_id in enumerate(item_ids)))


def id_trie_agrees(id_trie: marisa_trie.RecordTrie, item_ids: pa.StringArray) -> bool:
    """Whether a trie leads from exactly these ids to their rows, and from no other.

    Raises:
        DataError: it holds something else than one 4-byte row an id.
    """
    raw = marisa_trie.BinaryTrie()  # its keys are the bytes of an id, 0xff (which is in no UTF-8), the record
    raw.frombytes(id_trie.tobytes())
    keys, found = raw.iterkeys(), np.zeros(len(item_ids), dtype=bool)
    while chunk := list(islice(keys, _KEYS_AT_ONCE)):
        entries = pa.array(chunk, pa.binary())
        separator_place = pc.subtract(pc.binary_length(entries), 5)
        if not pc.all(pc.equal(pc.find_substring(entries, b"\xff"), separator_place)).as_py():
            raise DataError("the id trie does not hold one 4-byte row an item id.")
        rows = np.frombuffer(b"".join(key[-4:] for key in chunk), dtype="<u4")
        if rows.max() >= len(item_ids):
            return False
        if not pc.binary_slice(entries, 0, -5).equals(item_ids.take(pa.array(rows)).cast(pa.binary())):
            return False
        found[rows] = True
    return bool(found.all())


def first_unordered(rows: npt.NDArray[np.int32]) -> int | None:
    """The first row that does not sort after the one above it, level by level; None if all ascend and are distinct."""
    equal_so_far = np.ones(len(rows) - 1, dtype=bool)
    unordered = np.zeros(len(rows) - 1, dtype=bool)
    for level in range(rows.shape[1]):
        above, below = rows[:-1, level], rows[1:, level]
        unordered |= equal_so_far & (below < above)
        equal_so_far &= below == above
    unordered |= equal_so_far
    return int(np.argmax(unordered)) + 1 if unordered.any() else None


def column_type(kind: pa.DataType, column: str) -> str:
    """The name that users know an Arrow type by.

    Raises:
        DataError: the type is none that a catalog may hold.
    """
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and (
        pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    ):
        return "list of strings"
    raise DataError(
        f"metadata column {column!r} has type {kind}; a catalog holds strings, numbers, booleans and lists of strings."
    )


def _check_item_ids(item_ids: pa.StringArray) -> None:
    if len(item_ids) == 0:
        raise DataError("the catalog is empty; it needs at least one item.")
    if item_ids.null_count:
        raise DataError(f"row {pc.index(item_ids.is_null(), True).as_py()} of the catalog has no item id.")
    unfit = pc.match_substring_regex(item_ids, r"^$|[\x00-\x1f\x7f]")
    if pc.any(unfit).as_py():
        row = pc.index(unfit, True).as_py()
        raise DataError(f"item id {item_ids[row].as_py()!r} in row {row} is empty or holds a control character.")
    if len(pc.unique(item_ids)) < len(item_ids):
        counts = pc.value_counts(item_ids)
        repeated = pc.greater(counts.field("counts"), 1)
        item_id = counts.field("values")[pc.index(repeated, True).as_py()].as_py()
        raise DataError(f"item id {item_id!r} occurs more than once in the catalog; ids must be unique.")


def _check_codes(codes: npt.NDArray[np.int32], item_ids: pa.StringArray) -> None:
    if codes.min() < 0:
        row = int(np.argmax(codes.min(axis=1) < 0))
        raise DataError(f"item {item_ids[row].as_py()!r} has a negative code; codes count from 0.")
    if first_unordered(codes) is None:  # as in every bundle: no need to sort millions of rows to see that they differ
        return
    order = np.lexsort(codes.T[::-1])
    same = np.flatnonzero((codes[order[1:]] == codes[order[:-1]]).all(axis=1))
    if same.size:
        first, second = (item_ids[int(order[same[0] + step])].as_py() for step in (0, 1))
        shared = tuple(codes[order[same[0]]].tolist())
        raise DataError(
            f"items {first!r} and {second!r} share the semantic ID {shared}; give one of them another code "
            "or add a collision level."
        )
