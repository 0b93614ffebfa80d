"""The catalog is a bijection between item ids and semantic IDs, and refuses to be anything else."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.semantic_id import Catalog, build_id_trie

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
