"""The catalog is a bijection between item ids and semantic IDs, and refuses to be anything else."""

from collections.abc import Iterator
from typing import Any

import marisa_trie
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import semantic_id
from genrec.errors import DataError
from genrec.semantic_id import Catalog, build_id_trie, first_unordered, id_trie_agrees

ITEM_IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def catalog(item_ids: list[Any] | None = None, codes: Any = None, **parts: Any) -> Catalog:
    item_ids = ["a", "b", "c"] if item_ids is None else item_ids
    count = len(item_ids)
    codes = [[row // 2, row % 2] for row in range(count)] if codes is None else codes
    return Catalog(
        item_ids=pa.array(item_ids, pa.string()),
        codes=np.array(codes, dtype=parts.get("dtype", np.int32)).reshape(-1, parts.get("levels", 2)),
        popularity=np.array(parts.get("popularity", range(count)), dtype=np.int64),
        metadata=pa.table(parts.get("metadata", {})),
    )


@given(st.lists(ITEM_IDS, min_size=1, max_size=30, unique=True))
def test_an_item_id_leads_to_its_row_and_back(item_ids: list[str]) -> None:
    items = catalog(item_ids)
    assert [items.row(item_id) for item_id in item_ids] == list(range(len(item_ids)))
    assert [items.item_id(row) for row in range(len(items))] == item_ids


@given(st.lists(ITEM_IDS, min_size=1, max_size=10, unique=True), st.text(max_size=12))
def test_any_other_text_leads_to_no_row(item_ids: list[str], text: str) -> None:
    items = catalog(item_ids)
    assert items.row(text) == (item_ids.index(text) if text in item_ids else None)


@pytest.mark.parametrize("item_id", ["", "1", "100", "0010", "010\0", "\ud800", "é", "010\xff"])
def test_an_unknown_id_has_no_row_however_near_it_is(item_id: str) -> None:
    assert catalog(["010", "10"]).row(item_id) is None


def test_leading_zeros_are_part_of_an_id() -> None:
    items = catalog(["010", "10"])
    assert (items.row("010"), items.row("10")) == (0, 1)


def test_semantic_ids_are_tuples_of_plain_integers() -> None:
    items = catalog()
    assert items.semantic_id(1) == (0, 1)
    assert all(type(code) is int for code in items.semantic_id(2))
    assert (len(items), items.num_levels) == (3, 2)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"item_ids": []}, "the catalog is empty"),
        ({"item_ids": ["a", None]}, "row 1 of the catalog has no item id"),
        ({"item_ids": ["a", ""]}, r"item id '' in row 1 is empty"),
        ({"item_ids": ["a", "b\nc"]}, r"item id 'b\\nc' in row 1 .* control character"),
        ({"item_ids": ["a", "b", "a"]}, "item id 'a' occurs more than once"),
        ({"codes": [[0, 0], [0, -1], [1, 0]]}, "item 'b' has a negative code"),
        ({"codes": [[0, 1], [0, 0], [0, 1]]}, r"items 'a' and 'c' share the semantic ID \(0, 1\)"),
        ({"dtype": np.int64}, "codes must be int32"),
        ({"codes": [[0, 0], [0, 1]]}, "3 item ids but 2 rows of codes"),
        ({"popularity": [1]}, "3 item ids but 1 rows of popularity"),
        ({"metadata": {"title": ["x"]}}, "3 item ids but 1 rows of metadata"),
        ({"metadata": {"popularity": [1, 2, 3]}}, "may not be named 'popularity'"),
        ({"metadata": {"item_id": ["x", "y", "z"]}}, "may not be named 'item_id'"),
        ({"metadata": {"code_7": [1, 2, 3]}}, "may not be named 'code_7'"),
        ({"metadata": {"when": pa.array([1, 2, 3], pa.timestamp("s"))}}, r"'when' has type timestamp\[s\]"),
        ({"metadata": {"tags": pa.array([[1], [2], [3]])}}, "'tags' has type list"),
    ],
)
def test_a_catalog_that_is_no_bijection_is_refused_with_the_item_or_column(
    parts: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        catalog(**parts)


def test_codes_of_no_level_are_refused() -> None:
    with pytest.raises(DataError, match="codes must be int32"):
        Catalog(pa.array(["a"]), np.zeros((1, 0), np.int32), np.zeros(1, np.int64), pa.table({}))


METADATA = {
    "title": ["A", "B", None],
    "year": [1, 2, 3],
    "price": [0.5, 1.5, None],
    "seen": [True, False, None],
    "genres": [["x"], [], None],
    "long": pa.array(["p", "q", "r"], pa.large_string()),
}


def test_columns_are_named_as_users_know_them() -> None:
    assert catalog(metadata=METADATA).columns == {
        "title": "string",
        "year": "integer",
        "price": "number",
        "seen": "boolean",
        "genres": "list of strings",
        "long": "string",
    }


def test_an_item_is_described_by_all_columns_or_by_the_fields_asked_for() -> None:
    items = catalog(metadata=METADATA)
    assert items.describe(0) == {"title": "A", "year": 1, "price": 0.5, "seen": True, "genres": ["x"], "long": "p"}
    assert items.describe(2, ["genres", "title"]) == {"genres": None, "title": None}
    assert items.describe(1, []) == {}
    assert catalog().describe(1) == {}


def test_the_most_popular_come_first_and_ties_by_row() -> None:
    assert catalog(["a", "b", "c", "d"], popularity=[5, 9, 5, 9]).most_popular().tolist() == [1, 3, 0, 2]


def test_the_order_by_popularity_is_found_once_and_cannot_be_spoilt() -> None:
    items = catalog(popularity=[1, 3, 2])
    assert items.most_popular() is items.most_popular()
    with pytest.raises(ValueError, match="read-only"):
        items.most_popular()[0] = 0


def test_taking_rows_moves_everything_about_an_item() -> None:
    items = catalog(metadata=METADATA).take(np.array([2, 0, 1]))
    assert [items.item_id(row) for row in range(3)] == ["c", "a", "b"]
    assert [items.semantic_id(row) for row in range(3)] == [(1, 0), (0, 0), (0, 1)]
    assert items.popularity.tolist() == [2, 0, 1]
    assert [items.describe(row, ["year"])["year"] for row in range(3)] == [3, 1, 2]
    assert items.row("c") == 0
    assert len(catalog().take(np.array([1, 0, 2])).metadata.column_names) == 0


def test_the_id_trie_holds_one_row_an_id() -> None:
    assert build_id_trie(["b", "a"]).items() == [("a", (1,)), ("b", (0,))]


ROWS = st.integers(1, 3).flatmap(
    lambda levels: st.lists(st.lists(st.integers(0, 2), min_size=levels, max_size=levels), min_size=1, max_size=8)
)


@given(ROWS | ROWS.map(sorted))
def test_the_first_row_out_of_order_is_what_a_plain_loop_finds(rows: list[list[int]]) -> None:
    found = next((row for row in range(1, len(rows)) if rows[row] <= rows[row - 1]), None)
    assert first_unordered(np.array(rows, dtype=np.int32)) == found


@pytest.fixture(autouse=True, scope="module")
def few_keys_at_once() -> Iterator[None]:
    """So that tries of a few ids are compared in several pieces, as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_id, "_KEYS_AT_ONCE", 3)
        yield


def raw_trie(*keys: bytes) -> marisa_trie.RecordTrie:
    """A trie of records as its bytes say it, right or wrong."""
    trie = marisa_trie.RecordTrie("<I")
    trie.frombytes(marisa_trie.BinaryTrie(keys).tobytes())
    return trie


DISTINCT_IDS = st.lists(ITEM_IDS, min_size=1, max_size=12, unique=True)


@given(DISTINCT_IDS)
def test_the_trie_of_the_same_ids_agrees(item_ids: list[str]) -> None:
    assert id_trie_agrees(build_id_trie(item_ids), pa.array(item_ids))


@given(DISTINCT_IDS, st.data())
def test_the_trie_of_other_ids_or_of_another_order_disagrees(item_ids: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(item_ids) - 1))
    others = [
        data.draw(st.permutations(item_ids)),
        [*item_ids[:place], item_ids[place] + "x", *item_ids[place + 1 :]],
        item_ids[:place] + item_ids[place + 1 :],
        [*item_ids, "x" * 13],
    ]
    for other in others:
        assert id_trie_agrees(build_id_trie(other), pa.array(item_ids)) == (other == item_ids)


@pytest.mark.parametrize(
    "keys",
    [
        [b"a\xff\0\0\0\0", b"b\xff\2\0\0\0"],  # a row that there is not
        [b"a\xff\0\0\0\0", b"b\xff\xff\xff\xff\xff"],
        [b"a\xff\0\0\0\0", b"a\xff\1\0\0\0"],  # one id with two rows
        [b"a\xff\0\0\0\0", b"b\xff\0\0\0\0"],  # two ids with one row
        [b"a\xff\0\0\0\0", b"\xff\1\0\0\0"],
        [b"a\xff\0\0\0\0", b"\0\1\0\0"],
        [b"a\xff\0\0\0\0"],
    ],
)
def test_a_trie_with_other_entries_disagrees(keys: list[bytes]) -> None:
    assert not id_trie_agrees(raw_trie(*keys), pa.array(["a", "b"]))


def test_two_rows_of_one_id_are_not_both_found_by_it() -> None:
    keys = [b"a\xff\0\0\0\0", b"b\xff\1\0\0\0", b"b\xff\2\0\0\0"]
    assert not id_trie_agrees(raw_trie(*keys), pa.array(["a", "b"]))


@pytest.mark.parametrize("key", [b"b\xff\1\0", b"b\xff\1\0\0\0\0", b"b", b"b\1\0\0\0", b"\xff", b"b\xff\xff\1\0\0\0"])
def test_a_trie_of_another_layout_is_refused(key: bytes) -> None:
    with pytest.raises(DataError, match="does not hold one 4-byte row an item id"):
        id_trie_agrees(raw_trie(b"a\xff\0\0\0\0", key), pa.array(["a", "b"]))


def test_a_catalog_looks_ids_up_in_the_trie_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    items = catalog(["a", "b", "c"])
    trie = build_id_trie(["a", "b", "c"])
    monkeypatch.setattr(semantic_id, "build_id_trie", lambda _: pytest.fail("the trie was built again"))
    given = items.with_id_trie(trie)
    assert [given.row(item_id) for item_id in ("a", "b", "c", "d")] == [0, 1, 2, None]
    assert given.row_of_id is trie
    assert "row_of_id" not in vars(items)
