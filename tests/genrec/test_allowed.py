"""Allowed items are counted and selected as a plain set would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genrec.allowed import AllowedItems, ItemMask

ROWS = st.lists(st.integers(0, 29), max_size=40)


@given(ROWS, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted), min_size=1, max_size=10))
def test_ranges_are_counted_as_by_hand(excluded: list[int], ranges: list[list[int]]) -> None:
    allowed = AllowedItems.all_but(excluded, ItemMask.everything(30))
    first, last = np.array(ranges, dtype=np.int32).T
    by_hand = [sum(row not in excluded for row in range(*pair)) for pair in ranges]
    assert allowed.count(first, last).tolist() == by_hand
    assert len(allowed) == 30 - len(set(excluded))


@given(ROWS, st.permutations(range(30)))
def test_allowed_rows_are_selected_in_the_order_given(excluded: list[int], order: list[int]) -> None:
    selected = AllowedItems.all_but(excluded, ItemMask.everything(30)).select(np.array(order))
    assert selected.tolist() == [row for row in order if row not in excluded]


@given(st.integers(0, 10**6), st.integers(0, 4_000), st.sampled_from([0.0, 0.001, 0.1, 0.9]))
def test_the_first_allowed_rows_are_the_first_of_all_that_are_selected(seed: int, count: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    allowed = AllowedItems.all_but(rng.integers(0, 5_000, 10).tolist(), ItemMask(rng.random(5_000) < share))
    order = rng.permutation(5_000)
    assert allowed.first(order, count).tolist() == allowed.select(order)[:count].tolist()


def test_nothing_need_be_excluded() -> None:
    allowed = AllowedItems.all_but([], ItemMask.everything(3))
    assert len(allowed) == 3
    assert allowed.select(np.array([2, 0])).tolist() == [2, 0]
