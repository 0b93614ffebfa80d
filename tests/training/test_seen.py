"""A bundle that has seen test interactions is not measured on them."""

import numpy as np
import pytest

from genrec.errors import InputError
from tests.service.fakes import small_manifest
from training.seen import SEEN_UNTIL, check_unseen, instant, seen_until
from training.sequences import Sequences


def sequences(*times: int) -> Sequences:
    """One user with a training, a validation and a test interaction, and one who only trains."""
    return Sequences(
        item_ids=["x"],
        user_ids=["u", "v"],
        items=np.zeros(4, dtype=np.int32),
        times=np.array([*times, 90], dtype=np.int64),
        starts=np.array([0, 3, 4]),
        validation_starts=np.array([1, 4]),
        test_starts=np.array([2, 4]),
    )


def manifest(until: int | None):
    provenance = {} if until is None else {SEEN_UNTIL: until}
    return small_manifest().model_copy(update={"provenance": provenance})


@pytest.mark.parametrize("until", [20, 25, 30, 99])
def test_what_is_held_out_must_all_be_later_than_what_was_seen(until: int) -> None:
    with pytest.raises(InputError, match="no result"):
        check_unseen(manifest(until), sequences(10, 20, 30))


@pytest.mark.parametrize("until", [None, 10, 19])
def test_a_bundle_that_has_not_seen_it_may_be_measured(until: int | None) -> None:
    check_unseen(manifest(until), sequences(10, 20, 30))
    assert seen_until(manifest(until)) == until


def test_data_that_hold_nothing_out_measure_nothing() -> None:
    whole = sequences(10, 20, 30)
    nothing = Sequences(
        whole.item_ids, whole.user_ids, whole.items, whole.times, whole.starts, whole.starts[1:], whole.starts[1:]
    )
    check_unseen(manifest(99), nothing)


def test_a_time_beyond_the_calendar_is_a_number() -> None:
    assert instant(0) == "1970-01-01T00:00:00+00:00"
    assert instant(10**17) == f"{10**17} ms"
