"""Which interactions are for training, validation and test, and the proof that none leaks.

Works on `Interactions` in order. Shapes: n interactions.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError, TrainingError
from training.interactions import IntArray, Interactions

SPLITS: Final = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
Split = npt.NDArray[np.int8]
"""(n,) int8: TRAIN, VALIDATION or TEST."""


def positions(user: IntArray) -> IntArray:
    """(n,) int32: the place of each interaction within its user, from 0. Rows must be grouped by user."""
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    lengths = np.diff(starts, append=len(user))
    return (np.arange(len(user)) - np.repeat(starts, lengths)).astype(np.int32)


def leave_one_out(interactions: Interactions) -> Split:
    """A user's last interaction is test and the one before it validation; users with fewer than three only train."""
    place = positions(interactions.user)
    lengths = np.bincount(interactions.user, minlength=1)[interactions.user]
    from_end = lengths - place
    split = np.full(len(interactions), TRAIN, dtype=np.int8)
    split[(from_end == 2) & (lengths >= 3)] = VALIDATION
    split[(from_end == 1) & (lengths >= 3)] = TEST
    return split


def by_time(interactions: Interactions, validation_share: float, test_share: float) -> Split:
    """The newest interactions of all users are test, those before them validation; equal times are never parted.

    Raises:
        DataError: The times are too few to give each split something.
    """
    times = np.sort(interactions.time)
    last = len(times) - 1
    validation_from = times[min(last, int(len(times) * (1 - validation_share - test_share)))]
    test_from = times[min(last, int(len(times) * (1 - test_share)))]
    if not times[0] < validation_from < test_from:
        raise DataError(
            f"split by time: {len(np.unique(times))} distinct times cannot give training, validation and test each a "
            "part; change validation_share and test_share, or use leave_one_out"
        )
    split = np.full(len(interactions), TRAIN, dtype=np.int8)
    split[interactions.time >= validation_from] = VALIDATION
    split[interactions.time >= test_from] = TEST
    return split


def all_training(interactions: Interactions) -> Split:
    """Nothing is held out."""
    return np.full(len(interactions), TRAIN, dtype=np.int8)


def validation_is_training(split: Split) -> Split:
    """The same with only test held out."""
    return np.where(split == VALIDATION, np.int8(TRAIN), split)


def seen_is_training(interactions: Interactions, split: Split, seen_until_ms: int) -> Split:
    """The same with everything up to a time as training: a base bundle that was trained on all of it is no judge of it.

    Raises:
        DataError: Nothing newer is left to test on.
    """
    newer = np.where(interactions.time <= seen_until_ms, np.int8(TRAIN), split)
    if (split == TEST).any() and not (newer == TEST).any():
        raise DataError(
            "the base bundle was trained on all interactions up to the newest of these, so there is nothing to test "
            "on; give newer data, or a base bundle that was not refitted."
        )
    return newer


def check_no_leak(user: npt.NDArray[np.integer], position: npt.NDArray[np.integer], split: Split) -> None:
    """Prove that within each user training comes before validation and validation before test.

    Args:
        user: (n,) which user.
        position: (n,) place in the user's history.
        split: (n,).

    Raises:
        TrainingError: Something held out lies at or before a later training position of its own user, or a position
            occurs twice.
    """
    order = np.lexsort((position, user))
    same_user = np.diff(user[order]) == 0
    repeated = same_user & (np.diff(position[order]) == 0)
    backwards = same_user & (np.diff(split[order].astype(np.int16)) < 0)
    for broken, what in (
        (repeated, "two interactions at one position"),
        (backwards, "training data after held-out data"),
    ):
        if broken.any():
            row = order[int(np.flatnonzero(broken)[0])]
            raise TrainingError(f"leak: user number {user[row]} has {what} (near position {position[row]})")
