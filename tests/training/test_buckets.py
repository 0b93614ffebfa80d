import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.buckets import HISTORY_LENGTHS, TARGET_COUNTS, buckets


@given(
    values=st.lists(st.integers(1, 700), min_size=1, max_size=40),
    starts=st.sampled_from([TARGET_COUNTS, HISTORY_LENGTHS]),
)
def test_each_case_is_in_one_bucket_whose_label_says_so(values: list[int], starts: tuple[int, ...]) -> None:
    array = np.asarray(values)
    found = list(buckets(array, starts))
    assert np.sum([bucket.chosen for bucket in found], axis=0).tolist() == [1] * len(values)
    for bucket in found:
        low, _, high = bucket.label.rstrip("+").partition("-")
        end = 10**9 if bucket.label.endswith("+") else int(high or low)
        assert all(int(low) <= value <= end for value in array[bucket.chosen])


@pytest.mark.parametrize(
    ("value", "label"), [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-9"), (499, "100-499"), (500, "500+")]
)
def test_buckets_begin_where_they_say(value: int, label: str) -> None:
    assert [bucket.label for bucket in buckets(np.array([value]), TARGET_COUNTS)] == [label]
