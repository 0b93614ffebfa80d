import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from training.interactions import Interactions, core, in_order, rated_at_least, without_duplicates

Rows = list[tuple[int, int, int]]
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60)


def make(rows: Rows, rating: list[float] | None = None) -> Interactions:
    """Rows of user, item, time."""
    user, item, time = (np.array(column) for column in zip(*rows, strict=True))
    names = [f"n{number}" for number in range(9)]
    return Interactions(
        user_ids=names,
        item_ids=names,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        time=time.astype(np.int64),
        rating=None if rating is None else np.array(rating),
    )


def rows_of(interactions: Interactions) -> Rows:
    return list(zip(interactions.user.tolist(), interactions.item.tolist(), interactions.time.tolist(), strict=True))


@given(ROWS, st.randoms())
def test_the_order_of_the_input_has_no_say(rows: Rows, random: object) -> None:
    ordered = rows_of(in_order(make(rows), seed=1))
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rows_of(in_order(make(shuffled), seed=1)) == ordered
    assert [(user, time) for user, _, time in ordered] == sorted((user, time) for user, _, time in rows)


def test_ties_follow_the_seed_the_user_and_not_the_item_id() -> None:
    rows = [(user, item, 0) for user in range(5) for item in range(5)]
    orders = {seed: rows_of(in_order(make(rows), seed)) for seed in range(20)}
    assert len({tuple(order) for order in orders.values()}) == 20
    by_user = {tuple(item for user, item, _ in orders[0] if user == wanted) for wanted in range(5)}
    assert len(by_user) > 1
    # Over seeds every item comes first about equally often: sorted files leak nothing.
    first = [order[0][1] for order in orders.values()]
    assert len(set(first)) > 2


def test_a_tie_is_not_moved_by_interactions_elsewhere() -> None:
    few = [(0, item, 0) for item in range(4)]
    more = few + [(1, item, 0) for item in range(4)]
    assert rows_of(in_order(make(more), 3))[:4] == rows_of(in_order(make(few), 3))


def test_lower_ratings_and_missing_ones_are_dropped() -> None:
    data = make([(0, 0, 0), (0, 1, 1), (0, 2, 2)], rating=[4.0, 3.9, float("nan")])
    assert rows_of(rated_at_least(data, 4.0)) == [(0, 0, 0)]
    with pytest.raises(DataError, match="no rating column"):
        rated_at_least(make([(0, 0, 0)]), 4.0)


def test_duplicates_are_kept_or_the_first_or_last_of_each_pair_stays() -> None:
    data = make([(0, 0, 0), (0, 1, 1), (0, 0, 2), (1, 0, 0)])
    assert rows_of(without_duplicates(data, "keep")) == rows_of(data)
    assert rows_of(without_duplicates(data, "first")) == [(0, 0, 0), (0, 1, 1), (1, 0, 0)]
    assert rows_of(without_duplicates(data, "last")) == [(0, 1, 1), (0, 0, 2), (1, 0, 0)]


@given(ROWS, st.integers(1, 4), st.integers(1, 4))
def test_the_core_is_the_largest_part_in_which_all_have_enough(rows: Rows, user_core: int, item_core: int) -> None:
    left = rows_of(core(make(rows), user_core, item_core))
    remaining = list(rows)
    while True:  # one row at a time: slow, and plainly right
        bad = [
            row
            for row in remaining
            if sum(r[0] == row[0] for r in remaining) < user_core or sum(r[1] == row[1] for r in remaining) < item_core
        ]
        if not bad:
            break
        remaining.remove(bad[0])
    assert left == remaining
