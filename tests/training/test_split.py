import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError, TrainingError
from tests.training.test_interactions import make
from training.interactions import in_order
from training.split import (
    TEST,
    TRAIN,
    VALIDATION,
    all_training,
    by_time,
    check_no_leak,
    leave_one_out,
    positions,
    seen_is_training,
    validation_is_training,
)

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def of_lengths(lengths: list[int]) -> list[tuple[int, int, int]]:
    return [(user, place % 9, place) for user, length in enumerate(lengths) for place in range(length)]


def test_positions_count_within_each_user() -> None:
    assert positions(np.array([0, 0, 2, 2, 2, 5], dtype=np.int32)).tolist() == [0, 1, 0, 1, 2, 0]


def test_the_last_item_is_test_and_the_one_before_validation_and_short_users_only_train() -> None:
    split = leave_one_out(make(of_lengths([3, 1, 2, 4])))
    t, v, e = TRAIN, VALIDATION, TEST
    assert split.tolist() == [t, v, e, t, t, t, t, t, v, e]


@given(LENGTHS)
def test_neither_split_leaks(lengths: list[int]) -> None:
    data = in_order(make([(user, item, place * 10 + user) for user, item, place in of_lengths(lengths)]), seed=0)
    place = positions(data.user)
    check_no_leak(data.user, place, leave_one_out(data))
    if len(data) > 3:
        check_no_leak(data.user, place, by_time(data, 0.2, 0.2))


def test_a_split_by_time_takes_the_newest_shares_of_all_users_and_never_parts_equal_times() -> None:
    data = make([(0, 0, time) for time in range(8)] + [(1, 1, 8), (2, 2, 8)])
    assert by_time(data, 0.2, 0.1).tolist() == [TRAIN] * 7 + [VALIDATION] + [TEST] * 2


def test_times_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(DataError, match="distinct times"):
        by_time(make([(0, 0, 1), (0, 1, 1), (0, 2, 1)]), 0.3, 0.3)


@pytest.mark.parametrize(
    ("position", "split", "what"),
    [
        ([0, 1, 2], [TRAIN, TEST, TRAIN], "training data after held-out data"),
        ([0, 1, 2], [TEST, TRAIN, TRAIN], "training data after held-out data"),
        ([0, 1, 2], [TRAIN, TEST, VALIDATION], "training data after held-out data"),
        ([2, 1, 0], [TRAIN, VALIDATION, TEST], "training data after held-out data"),
        ([0, 1, 1], [TRAIN, TRAIN, TEST], "two interactions at one position"),
    ],
)
def test_a_leak_is_an_error(position: list[int], split: list[int], what: str) -> None:
    with pytest.raises(TrainingError, match=what):
        check_no_leak(np.array([4, 4, 4]), np.array(position), np.array(split, dtype=np.int8))


def test_one_users_future_is_not_anothers_leak() -> None:
    check_no_leak(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.array([TRAIN, TRAIN, TEST, TEST], dtype=np.int8))


def test_nothing_is_held_out_where_none_is_wanted() -> None:
    assert set(all_training(make(of_lengths([3, 4]))).tolist()) == {TRAIN}


def test_where_validation_trains_only_test_is_held_out() -> None:
    split = np.array([TRAIN, VALIDATION, TEST], dtype=np.int8)
    assert validation_is_training(split).tolist() == [TRAIN, TRAIN, TEST]
    assert split.tolist() == [TRAIN, VALIDATION, TEST]


@given(LENGTHS, st.integers(-1, 70))
def test_what_a_base_has_seen_is_training_and_the_rest_as_it_was(lengths: list[int], until: int) -> None:
    data = in_order(make([(user, item, place * 10 + user) for user, item, place in of_lengths(lengths)]), seed=0)
    split = leave_one_out(data)
    tests_left = (data.time[split == TEST] > until).any()
    if (split == TEST).any() and not tests_left:
        with pytest.raises(DataError, match="nothing to test on"):
            seen_is_training(data, split, until)
        return
    newer = seen_is_training(data, split, until)
    check_no_leak(data.user, positions(data.user), newer)
    for time, before, after in zip(data.time.tolist(), split.tolist(), newer.tolist(), strict=True):
        assert after == (TRAIN if time <= until else before)
