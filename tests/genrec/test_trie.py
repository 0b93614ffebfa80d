"""The trie says of every prefix what a plain set of paths says."""

from collections.abc import Iterator
from pathlib import Path

import marisa_trie
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import trie as trie_module
from genrec.errors import DataError
from genrec.trie import ItemTrie, sort_order

TOKEN = st.integers(0, 5) | st.sampled_from([2**31 - 1, 255, 256, 65536])
LEVELS = st.integers(1, 4)
PATHS = LEVELS.flatmap(lambda levels: st.lists(st.tuples(*[TOKEN] * levels), min_size=1, max_size=40, unique=True))


def array(paths: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(paths, dtype=np.int32)


def trie_of(paths: list[tuple[int, ...]]) -> ItemTrie:
    rows = array(paths)
    return ItemTrie.from_sorted(rows[sort_order(rows)])


@given(PATHS)
def test_paths_in_any_order_give_the_trie_of_their_set(paths: list[tuple[int, ...]]) -> None:
    trie = trie_of(paths)
    ordered = sorted(paths)
    assert (trie.num_items, trie.num_levels) == (len(paths), len(paths[0]))
    assert trie.paths.tolist() == [list(path) for path in ordered]
    for level in range(trie.num_levels):
        prefixes = sorted({path[:level] for path in paths})
        for node, prefix in enumerate(prefixes):
            below = trie.children(level, node)
            children = sorted({path[level] for path in paths if path[:level] == prefix})
            assert trie.token[level][below].tolist() == children
            assert [trie.descend((*prefix, token)) for token in children] == list(range(below.start, below.stop))


@given(PATHS)
def test_a_node_owns_the_leaves_that_start_with_its_prefix(paths: list[tuple[int, ...]]) -> None:
    trie = trie_of(paths)
    ordered = sorted(paths)
    for level in range(trie.num_levels + 1):
        first_leaf = trie.first_leaf[level]
        for node, prefix in enumerate(sorted({path[:level] for path in paths})):
            leaves = [row for row, path in enumerate(ordered) if path[:level] == prefix]
            assert list(range(first_leaf[node], first_leaf[node + 1])) == leaves
    assert [trie.descend(path) for path in ordered] == list(range(len(paths)))


@given(PATHS, st.data())
def test_a_prefix_that_no_item_has_leads_nowhere(paths: list[tuple[int, ...]], data: st.DataObject) -> None:
    prefix = data.draw(st.lists(TOKEN | st.just(-1), min_size=1, max_size=len(paths[0])).map(tuple))
    found = trie_of(paths).descend(prefix)
    assert (found is None) == (prefix not in {path[: len(prefix)] for path in paths})


@given(PATHS)
def test_the_arrays_are_int32_as_the_decoder_reads_them(paths: list[tuple[int, ...]]) -> None:
    trie = trie_of(paths)
    assert {part.dtype for part in (*trie.indptr, *trie.token, *trie.first_leaf, trie.paths)} == {np.dtype(np.int32)}


@given(PATHS.filter(lambda paths: len(paths) > 1), st.data())
def test_rows_that_do_not_ascend_are_refused(paths: list[tuple[int, ...]], data: st.DataObject) -> None:
    ordered = sorted(paths)
    shuffled = data.draw(st.permutations(ordered))
    if shuffled == ordered:
        assert ItemTrie.from_sorted(array(shuffled)).num_items == len(paths)
        return
    with pytest.raises(DataError, match="is out of order"):
        ItemTrie.from_sorted(array(shuffled))


@given(PATHS, st.data())
def test_one_path_of_two_items_is_refused(paths: list[tuple[int, ...]], data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(paths))
    rows = sorted([*paths, twice])
    place = rows.index(twice)
    with pytest.raises(DataError, match=f"rows {place} and {place + 1} have one and the same token path"):
        ItemTrie.from_sorted(array(rows))


@pytest.mark.parametrize(
    "paths", [np.zeros((0, 3), np.int32), np.zeros((2, 0), np.int32), np.zeros(3, np.int32), np.zeros((1, 2), np.int64)]
)
def test_paths_of_another_shape_or_type_are_refused(paths: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"paths must be int32 of shape \(items, levels\)"):
        ItemTrie.from_sorted(paths)


@pytest.fixture(autouse=True, scope="module")
def few_keys_at_once() -> Iterator[None]:
    """So that tries of a few paths are compared in several pieces, as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trie_module, "_KEYS_AT_ONCE", 3)
        yield


@given(PATHS)
def test_a_marisa_trie_of_the_same_paths_agrees(paths: list[tuple[int, ...]]) -> None:
    trie = trie_of(paths)
    assert trie.agrees_with(trie.to_marisa())


@given(PATHS, st.data())
def test_a_marisa_trie_in_which_one_path_differs_disagrees(paths: list[tuple[int, ...]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(paths) - 1))
    level = data.draw(st.integers(0, len(paths[0]) - 1))
    other = [list(path) for path in paths]
    other[place][level] = 77
    assert not trie_of(paths).agrees_with(trie_of([tuple(path) for path in other]).to_marisa())


@given(PATHS.filter(lambda paths: len(paths) > 1))
def test_a_marisa_trie_with_an_item_more_or_less_disagrees(paths: list[tuple[int, ...]]) -> None:
    largest_last = sorted(paths)
    whole, part = trie_of(largest_last), trie_of(largest_last[:-1])  # their other keys are the same
    assert not whole.agrees_with(part.to_marisa())
    assert not part.agrees_with(whole.to_marisa())


def test_a_marisa_trie_with_the_rows_of_two_items_swapped_disagrees() -> None:
    keys = [np.array([*path, row], ">u4").tobytes() for path, row in (((1, 2), 1), ((1, 3), 0))]
    assert not trie_of([(1, 2), (1, 3)]).agrees_with(marisa_trie.BinaryTrie(keys))


def test_a_marisa_trie_in_another_order_agrees() -> None:
    trie = trie_of([(1, 2), (1, 3), (2, 0), (7, 7), (7, 8)])
    by_weight = marisa_trie.BinaryTrie(trie.to_marisa().keys(), order=marisa_trie.WEIGHT_ORDER, weights=range(5))
    assert trie.agrees_with(by_weight)


@pytest.mark.parametrize(
    "keys",
    [
        [[1, 2, 0], [1, 3, 2]],  # a row that there is not
        [[1, 2, 0], [1, 3, 2**32 - 1]],
        [[1, 2, 0], [1, 3, 0]],  # two paths with one row
        [[1, 2], [1, 3]],  # no row
        [[1, 2, 0, 0], [1, 3, 0, 1]],  # a level more
        [[1, 0], [3, 1]],  # a level less
        [[1, 2, 0], [1, 3, 1, 4]],  # longer at the end
        [[1, 2, 0], [257, 3, 1]],
    ],
)
def test_a_marisa_trie_with_other_keys_disagrees(keys: list[list[int]]) -> None:
    marisa = marisa_trie.BinaryTrie([np.array(key, ">u4").tobytes() for key in keys])
    assert not trie_of([(1, 2), (1, 3)]).agrees_with(marisa)


def test_keys_are_not_compared_across_their_borders() -> None:
    trie = trie_of([(0, 0), (0, 1)])
    joined = b"".join(trie.to_marisa().keys())
    cut = marisa_trie.BinaryTrie([joined[:13], joined[13:]])
    assert b"".join(cut.keys()) == joined
    assert not trie.agrees_with(cut)


def test_a_marisa_trie_is_read_by_anyone_who_knows_the_key_layout(tmp_path: Path) -> None:
    trie_of([(7, 300), (7, 2), (2**31 - 1, 0)]).to_marisa().save(str(tmp_path / "items.marisa"))
    loaded = marisa_trie.BinaryTrie()
    loaded.load(str(tmp_path / "items.marisa"))
    keys = sorted(tuple(np.frombuffer(key, ">u4").tolist()) for key in loaded)
    assert keys == [(7, 2, 0), (7, 300, 1), (2**31 - 1, 0, 2)]
    assert trie_of([(7, 300), (7, 2), (2**31 - 1, 0)]).agrees_with(loaded)
