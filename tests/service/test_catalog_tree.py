"""What the tree says of a prefix is what counting rows one by one says."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.semantic_id import Catalog
from genrec.trie import ItemTrie
from service.browser import CatalogBrowser
from service.catalog_tree import MAX_EXAMPLES, CatalogTree


@st.composite
def trees(draw: st.DrawFn) -> tuple[Catalog, CatalogTree]:
    """Catalogs in the order of their token paths, their codes in no order within a level."""
    levels = draw(st.integers(1, 3))
    paths = sorted(draw(st.sets(st.tuples(*[st.integers(0, 3)] * levels), min_size=1, max_size=25)))
    spelling = np.array(draw(st.permutations(range(4))))
    codes = spelling[np.array(paths)].astype(np.int32)
    popularity = draw(st.lists(st.integers(0, 4), min_size=len(paths), max_size=len(paths)))
    catalog = Catalog(
        pa.array([f"i{row}" for row in range(len(paths))]), codes, np.array(popularity, np.int64), pa.table({})
    )
    return catalog, CatalogBrowser(catalog, ItemTrie.from_sorted(np.array(paths, dtype=np.int32))).tree


@given(trees(), st.lists(st.integers(0, 4), max_size=4).map(tuple), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_it_is_what_counting_says(case, prefix, limit):
    catalog, tree = case
    rows = [row for row in range(len(catalog)) if catalog.semantic_id(row)[: len(prefix)] == prefix]
    found = tree.below(prefix, limit)
    if not rows or len(prefix) > catalog.num_levels:
        assert found is None
        return
    assert found is not None
    assert (found.prefix, found.items) == (prefix, len(rows))
    below: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        if len(prefix) < catalog.num_levels:
            below.setdefault(catalog.semantic_id(row)[: len(prefix) + 1], []).append(row)
    assert found.total == len(below)
    order = sorted(below, key=lambda child: (-sum(catalog.popularity[row] for row in below[child]), below[child][0]))
    assert [branch.semantic_id for branch in found.branches] == order[:limit]
    for branch in found.branches:
        inside = below[branch.semantic_id]
        assert branch.items == len(inside)
        assert branch.popularity == sum(catalog.popularity[row] for row in inside)
        best = sorted(inside, key=lambda row: (-catalog.popularity[row], row))
        assert branch.examples == tuple(best[:MAX_EXAMPLES])


@pytest.mark.parametrize("prefix", [(9,), (0, 9), (0, 0, 0, 0)])
def test_there_is_nothing_below_what_no_item_begins_with(prefix):
    codes = np.zeros((1, 3), np.int32)
    catalog = Catalog(pa.array(["a"]), codes, np.zeros(1, np.int64), pa.table({}))
    assert CatalogBrowser(catalog, ItemTrie.from_sorted(codes)).tree.below(prefix, 10) is None
