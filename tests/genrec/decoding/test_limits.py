"""The nodes that a search may enter are those that lead to an allowed item, whatever limits them."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding import limits as limits_module
from genrec.decoding.limits import LimitTables
from genrec.trie import ItemTrie
from tests.genrec.decoding.small_models import everything, only, random_trie
from tests.genrec.decoding.table import random_paths


@st.composite
def tries(draw: st.DrawFn) -> ItemTrie:
    levels, seed = draw(st.integers(1, 4)), draw(st.integers(0, 1000))
    num_items = draw(st.integers(1, min(6**levels, 60)))
    return ItemTrie.from_sorted(random_paths(np.random.default_rng(seed), levels, num_items))


def living(tables: LimitTables, trie: ItemTrie, allowed: list[AllowedItems]) -> list[list[list[bool]]]:
    """For each request and level, which nodes a search may enter."""
    limits = tables.limits(allowed)
    found: list[list[list[bool]]] = [[] for _ in allowed]
    for level in range(trie.num_levels):
        nodes = torch.arange(len(trie.token[level])).repeat(len(allowed), 1, 1)
        alive = torch.ones(nodes.shape, dtype=torch.bool)
        for place, one in enumerate(limits.narrow(level, nodes, alive)):
            found[place].append(one[0].tolist())
    return found


def expected(trie: ItemTrie, allowed: AllowedItems) -> list[list[bool]]:
    counts = [allowed.count(first[:-1], first[1:]) for first in trie.first_leaf[1:]]
    return [(count > 0).tolist() for count in counts]


@settings(max_examples=150, deadline=None)
@given(tries(), st.integers(0, 1000), st.integers(1, 6), st.integers(2, 8))
def test_a_node_lives_if_an_allowed_item_is_below_it(
    trie: ItemTrie, seed: int, num_queries: int, capacity: int
) -> None:
    rng = np.random.default_rng(seed)
    masks = [ItemMask(rng.random(trie.num_items) < share) for share in (0.0, 0.2, 0.6, 1.0)]
    tables = LimitTables(trie, "cpu")
    tables.capacity = max(capacity, 4)
    for _ in range(2):
        allowed = [
            AllowedItems.all_but(
                np.flatnonzero(rng.random(trie.num_items) < rng.choice([0.0, 0.1, 0.9, 1.0])), masks[rng.integers(0, 4)]
            )
            for _ in range(num_queries)
        ]
        assert living(tables, trie, allowed) == [expected(trie, items) for items in allowed]


def test_what_is_dead_already_stays_dead() -> None:
    trie = random_trie(30, (3, 4, 5))
    limits = LimitTables(trie, "cpu").limits([everything(trie, [0]), only(np.arange(30) < 20)])
    nodes = torch.arange(30).repeat(2, 1, 1)
    dead = torch.zeros(nodes.shape, dtype=torch.bool)
    assert not limits.narrow(2, nodes, dead).any()


def test_without_a_mask_there_is_no_table() -> None:
    trie = random_trie(100, (5, 5, 5))
    tables = LimitTables(trie, "cpu")
    limits = tables.limits([everything(trie), everything(trie, [3, 4])])
    assert limits.tables is None
    assert [dead is None for dead in tables.limits([everything(trie)]).dead] == [True] * 3


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[ItemMask]:
    """The masks whose tables were made, in order."""
    made: list[ItemMask] = []
    plain = LimitTables._fill

    def watched(self: LimitTables, slot: int, mask: ItemMask) -> None:
        made.append(mask)
        plain(self, slot, mask)

    monkeypatch.setattr(LimitTables, "_fill", watched)
    return made


def test_the_mask_that_was_used_least_lately_makes_room(fills: list[ItemMask]) -> None:
    trie = random_trie(100, (5, 5, 5))
    tables = LimitTables(trie, "cpu")
    tables.capacity = 3
    rng = np.random.default_rng(0)
    masks = [ItemMask(rng.random(100) < 0.5) for _ in range(5)]

    def use(*which: int) -> list[int]:
        fills.clear()
        allowed = [AllowedItems.all_but([], masks[number]) for number in which]
        assert living(tables, trie, allowed) == [expected(trie, items) for items in allowed]
        return [masks.index(mask) for mask in fills]

    assert use(0, 1, 2) == [0, 1, 2]
    assert use(2, 1, 0) == []
    assert use(3) == [3]  # in the place of 2
    assert use(0, 1, 3) == []
    assert use(2) == [2]  # in the place of 0
    assert use(0, 4) == [0, 4]  # in the places of 1 and 3
    assert use(2, 4, 0) == []
    assert use(0, 0, 1, 1) == [1]


def test_a_mask_that_nobody_has_any_more_is_let_go(fills: list[ItemMask]) -> None:
    trie = random_trie(100, (5, 5, 5))
    tables = LimitTables(trie, "cpu")
    tables.capacity = 2
    kept = ItemMask(np.arange(100) % 2 == 0)
    tables.limits([AllowedItems.all_but([], kept)])
    for step in range(5):  # states of the stock that come and go
        passing = ItemMask(np.arange(100) % 3 != step % 3)
        allowed = [AllowedItems.all_but([], passing)]
        assert living(tables, trie, allowed) == [expected(trie, allowed[0])]
        gone = weakref.ref(passing)
        fills.clear()
        del passing, allowed
        gc.collect()
        assert gone() is None
        assert living(tables, trie, [AllowedItems.all_but([], kept)]) == [expected(trie, only(kept.allowed))]
        assert fills == []  # never pushed out by the others


def test_tables_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    trie = random_trie(1000, (16, 16, 16))
    num_nodes = sum(map(len, trie.token))
    assert LimitTables(trie, "cpu").capacity == limits_module._MAX_MASKS
    monkeypatch.setattr(limits_module, "_TABLE_BYTES", 5 * num_nodes + 1)
    tables = LimitTables(trie, "cpu")
    assert tables.capacity == 5
    rng = np.random.default_rng(0)
    masks = [ItemMask(rng.random(1000) < 0.5) for _ in range(12)]
    for mask in masks:
        limits = tables.limits([AllowedItems.all_but([], mask)])
    assert limits.tables is not None
    assert sum(table.nbytes for table in limits.tables) == 5 * num_nodes
    monkeypatch.setattr(limits_module, "_TABLE_BYTES", 0)
    assert LimitTables(trie, "cpu").capacity == 2


def test_rows_know_the_nodes_above_them() -> None:
    trie = random_trie(100, (5, 5, 5))
    rows = np.array([0, 3, 50, 99])
    above = LimitTables(trie, "cpu").nodes_above(rows)
    for level, nodes in enumerate(above):
        assert nodes.tolist() == [trie.descend(trie.paths[row, :level].tolist()) for row in rows]
