import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.semantic_id import Catalog
from service.browser import CatalogBrowser, title_column
from tests.service.fakes import small_catalog

WORDS = ["star", "Wars", "the", "Ab", "b", "É"]


@st.composite
def catalogs(draw) -> Catalog:
    """Small catalogs in path order, their codes in no particular order within a level."""
    paths = draw(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=15, unique=True))
    spelling = draw(st.permutations(range(3)))
    codes = np.array([[spelling[code] for code in path] for path in sorted(paths)], dtype=np.int32)
    titles = draw(st.lists(st.lists(st.sampled_from(WORDS), max_size=3), min_size=len(codes), max_size=len(codes)))
    popularity = draw(st.lists(st.integers(0, 5), min_size=len(codes), max_size=len(codes)))
    kind = draw(st.sampled_from([pa.string(), pa.large_string()]))
    half = len(codes) // 2  # a large file is read in several pieces
    return Catalog(
        pa.array([f"i{row}" for row in range(len(codes))]),
        codes,
        np.array(popularity, dtype=np.int64),
        pa.table(
            {
                "title": pa.chunked_array(
                    [[" ".join(words) if words else None for words in part] for part in (titles[:half], titles[half:])],
                    kind,
                )
            }
        ),
    )


@given(catalogs(), st.lists(st.sampled_from([*WORDS, "sta", "s", "w", "é", "zz"]), max_size=2), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_search_is_what_a_plain_loop_finds(catalog, words, limit):
    titles = [(title or "").lower() for title in catalog.metadata.column("title").to_pylist()]
    words = [word.lower() for word in words]
    rows = [row for row, title in enumerate(titles) if all(word in title for word in words)]
    begins = {row: all(f" {word}" in f" {titles[row]}" for word in words) for row in rows}
    rows.sort(key=lambda row: (not begins[row], -catalog.popularity[row], row))
    found = CatalogBrowser(catalog).search(" ".join(words), limit)
    assert (found.rows, found.total) == (rows[:limit], len(rows))


@given(catalogs(), st.data(), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_neighbours_are_what_a_plain_loop_finds(catalog, data, limit):
    row = data.draw(st.integers(0, len(catalog) - 1))

    def shared(other: int) -> int:
        return next((level for level in range(3) if catalog.codes[other, level] != catalog.codes[row, level]), 3)

    others = [other for other in range(len(catalog)) if other != row and shared(other)]
    others.sort(key=lambda other: (-shared(other), -catalog.popularity[other], other))
    found = CatalogBrowser(catalog).similar(row, limit)
    assert [(one.row, one.shared_levels) for one in found] == [(other, shared(other)) for other in others[:limit]]


def test_an_id_is_found_first_whatever_the_titles_say():
    found = CatalogBrowser(small_catalog()).search(" films/alien? ", 5)
    assert (found.rows, found.total) == ([10], 1)


@pytest.mark.parametrize(
    ("columns", "title"),
    [
        ({"name": ["x"], "title": ["y"]}, "title"),
        ({"year": [1], "brand": ["x"], "name": ["y"]}, "name"),
        ({"year": [1], "brand": ["x"]}, "brand"),
        ({"title": [1]}, None),
    ],
)
def test_the_title_is_the_column_that_names_an_item(columns, title):
    catalog = Catalog(pa.array(["a"]), np.zeros((1, 1), np.int32), np.zeros(1, np.int64), pa.table(columns))
    assert title_column(catalog) == title


def test_without_any_text_ids_are_searched():
    catalog = Catalog(
        pa.array(["ab", "bc", "cd"]),
        np.arange(3, dtype=np.int32)[:, None],
        np.zeros(3, np.int64),
        pa.table({"year": [1, 2, 3]}),
    )
    assert CatalogBrowser(catalog).search("b", 5).rows == [1, 0]
