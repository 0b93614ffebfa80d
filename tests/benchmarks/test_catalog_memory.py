import numpy as np
import pytest
import torch

from benchmarks.catalog_memory import CatalogSize, limits, resident, total_bytes
from benchmarks.synthetic import Shape, write_bundle
from genrec.decoding.beam import BeamEngine
from genrec.decoding.limits import LimitTables
from genrec.filters import Filter
from genrec.recommender import Recommender
from service.browser import CatalogBrowser

CODEBOOKS = (8, 16, 16, 32)
ITEMS = 20_000


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    shape = Shape(ITEMS, CODEBOOKS, model="tiny-t5")
    return Recommender.load(write_bundle(tmp_path_factory.mktemp("bundle") / "bundle", shape), engine="beam")


def arrays(recommender: Recommender) -> dict[str, int]:
    """What the arrays of a recommender, and of the browser beside it, take: part -> bytes."""
    bundle, engine = recommender.bundle, recommender.engine
    assert isinstance(engine, BeamEngine)
    catalog, trie = bundle.catalog, bundle.trie
    browser = CatalogBrowser(catalog, trie)
    tables = LimitTables(trie, "cpu")
    mask = recommender.availability.mask
    return {
        "item ids": catalog.item_ids.nbytes,
        "codes": catalog.codes.nbytes,
        "popularity": catalog.popularity.nbytes,
        "metadata": catalog.metadata.nbytes,
        "ids.marisa": len(catalog.row_of_id.tobytes()),
        "token paths": trie.paths.nbytes,
        "trie: children": sum(level.nbytes for level in trie.indptr),
        "trie: tokens": sum(level.nbytes for level in trie.token),
        "trie: first leaves": sum(level.nbytes for level in trie.first_leaf),
        "engine: columns": sum(level.nbytes for level in engine.trie.column),
        "engine: parents": sum(level.nbytes for level in tables._parents),
        "what may be answered": mask.allowed.nbytes + mask.before.nbytes,
        "order by popularity": catalog.most_popular().nbytes
        + browser._rank.nbytes
        + browser.tree._popularity_before.nbytes,
        "title search": browser.index_bytes,
    }


def size_of(recommender: Recommender) -> CatalogSize:
    """Its numbers, those that are not of arrays taken from it."""
    catalog = recommender.bundle.catalog
    found = arrays(recommender)
    return CatalogSize(
        ITEMS,
        CODEBOOKS,
        id_bytes=13.0,
        metadata_bytes=catalog.metadata.nbytes / ITEMS,
        list_values=len(catalog.metadata.column("genres").combine_chunks().flatten()) / ITEMS,
        id_trie_bytes=found["ids.marisa"] / ITEMS,
        title_index_bytes=found["title search"] / ITEMS,
    )


def test_every_array_takes_what_the_arithmetic_says(recommender):
    expected = {part.name: part.bytes for part in resident(size_of(recommender))}
    assert arrays(recommender) == {name: pytest.approx(size, rel=0.01) for name, size in expected.items()}


def test_on_a_cpu_the_engine_shares_paths_and_children_with_the_trie(recommender):
    trie, engine = recommender.bundle.trie, recommender.engine
    assert recommender.bundle.encoder.paths is trie.paths
    assert all(np.shares_memory(one.numpy(), two) for one, two in zip(engine.trie.indptr, trie.indptr, strict=True))


def test_the_number_of_nodes_is_that_of_random_codes(recommender):
    nodes = [len(level) for level in recommender.bundle.trie.token]
    assert size_of(recommender).nodes == [pytest.approx(count, rel=0.01) for count in nodes]


def test_limits_are_bounded_as_the_code_bounds_them(recommender):
    size, trie = size_of(recommender), recommender.bundle.trie
    found = {part.name: part.bytes for part in limits(size)}
    tables = LimitTables(trie, "cpu")
    assert found["tables of living nodes"] == pytest.approx(tables.capacity * sum(map(len, trie.token)), rel=0.01)
    numbers = recommender.bundle.catalog.filterable.column("genres").combine_chunks()
    held = sum(buffer.size for buffer in numbers.flatten().indices.buffers() if buffer) + numbers.offsets.nbytes
    assert found["lists as numbers"] == pytest.approx(held, rel=0.02)
    before = recommender._masks.mask(Filter(where={"year": {"gte": 2000}}))
    assert before.allowed.nbytes + before.before.nbytes == pytest.approx(found["items off"], rel=0.01)
    assert found["masks of filters"] == 64 * found["items off"]


@pytest.mark.parametrize(("items", "tables"), [(10**5, 64), (10**7, 15), (10**9, 2)])
def test_a_large_catalog_keeps_fewer_tables_and_never_less_than_two(items, tables):
    size = CatalogSize(items)
    found = {part.name: part.bytes for part in limits(size)}
    assert round(found["tables of living nodes"] / sum(size.nodes)) == tables
    assert found["masks of filters"] == (64 * 5 * items if items == 10**5 else max(256 << 20, 5 * items))
    assert total_bytes(size) > items * 200


def test_one_code_a_level_makes_one_node():
    assert CatalogSize(1, (1, 1)).nodes == [1.0, 1.0]
    assert torch.tensor(CatalogSize(10**9).nodes[:2]).tolist() == [256.0, 65_536.0]
