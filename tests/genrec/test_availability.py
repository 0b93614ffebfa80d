import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.allowed import ItemMask
from genrec.availability import Availability
from genrec.errors import InputError

N = 12
NONE = np.empty(0, np.int64)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def everything(num_items: int = N) -> Availability:
    return Availability(0, ItemMask.everything(num_items))


@given(st.lists(st.tuples(st.sets(st.integers(0, N - 1)), st.sets(st.integers(0, N - 1))), max_size=6))
def test_changes_are_as_those_of_a_set_and_each_is_a_version(changes):
    state, off_now = everything(), set()
    for version, (off, on) in enumerate(changes, start=1):
        off = off - on
        state = state.changed(off=rows(*off), on=rows(*on))
        off_now = (off_now | off) - on
        assert state.version == version
        assert set(np.flatnonzero(~state.mask.allowed)) == off_now
        assert state.items_off == len(off_now)


def test_the_state_before_a_change_stays_as_it_was():
    before = everything()
    mask = before.mask
    after = before.changed(off=rows(1, 1, 2), on=rows(2 - 2))
    assert before.mask is mask and before.items_off == 0 and before.version == 0
    assert after.mask is not mask, "an engine knows a mask by its identity"
    assert after.items_off == 2


@pytest.mark.parametrize(("off", "on"), [((3, 4), (4,)), ((N,), ()), ((-1,), ()), ((), (N,)), ((), (-1,))])
def test_a_change_that_contradicts_itself_or_the_catalog_is_refused(off, on):
    with pytest.raises(InputError):
        everything().changed(off=rows(*off), on=rows(*on))


def test_two_million_items_are_changed_in_a_moment():
    state = everything(2_000_000)
    off = np.random.default_rng(0).permutation(2_000_000)[:10_000]
    begin = time.perf_counter()
    state = state.changed(off=off, on=NONE).changed(off=NONE, on=off[:5_000])
    assert time.perf_counter() - begin < 0.5  # measured: 0.01
    assert (state.version, state.items_off) == (2, 5_000)
