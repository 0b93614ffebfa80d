import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.semantic_id import Catalog
from genrec.trie import ItemTrie
from service.browser import CatalogBrowser, title_column
from tests.service.fakes import small_catalog

WORDS = ["star", "Wars", "the", "Ab", "b", "É"]


def browser_of(catalog: Catalog) -> CatalogBrowser:
    """The rows are in path order, so among siblings the tokens ascend as the codes first occur."""
    paths = np.empty_like(catalog.codes)
    for row, codes in enumerate(catalog.codes.tolist()):
        for level in range(catalog.num_levels):
            above = {tuple(other[:level]): {} for other in catalog.codes[: row + 1].tolist()}
            for other in catalog.codes[: row + 1].tolist():
                siblings = above[tuple(other[:level])]
                siblings.setdefault(other[level], len(siblings))
            paths[row, level] = above[tuple(codes[:level])][codes[level]]
    return CatalogBrowser(catalog, ItemTrie.from_sorted(paths))


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
    titles = [(title or "").replace("É", "e").lower().split() for title in catalog.metadata.column("title").to_pylist()]
    words = [word.replace("É", "e").replace("é", "e").lower() for word in words]
    begun = [word for title in titles for word in title]

    def matches(word: str, title: list[str]) -> bool:
        if any(other.startswith(word) for other in begun):
            return any(other.startswith(word) for other in title)
        return any(word in other for other in title)

    rows = [row for row, title in enumerate(titles) if all(matches(word, title) for word in words)]
    rows.sort(key=lambda row: (-catalog.popularity[row], row))
    found = browser_of(catalog).search(" ".join(words), limit)
    assert (found.rows, found.total) == (rows[:limit], len(rows))


@given(catalogs(), st.data(), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_neighbours_are_what_a_plain_loop_finds(catalog, data, limit):
    row = data.draw(st.integers(0, len(catalog) - 1))

    def shared(other: int) -> int:
        return next((level for level in range(3) if catalog.codes[other, level] != catalog.codes[row, level]), 3)

    others = [other for other in range(len(catalog)) if other != row and shared(other)]
    others.sort(key=lambda other: (-shared(other), -catalog.popularity[other], other))
    found = browser_of(catalog).similar(row, limit)
    assert [(one.row, one.shared_levels) for one in found] == [(other, shared(other)) for other in others[:limit]]


def test_an_id_is_found_first_whatever_the_titles_say():
    found = browser_of(small_catalog()).search(" films/alien? ", 5)
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
    assert browser_of(catalog).search("b", 5).rows == [1]
    assert browser_of(catalog).search("d", 5).rows == [2]
