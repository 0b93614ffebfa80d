"""Input ids of histories, and training examples that ask exactly as serving asks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.history import IGNORE, HistoryEncoder, Prompt

PATHS = np.array([[10, 20], [11, 21], [12, 22], [13, 23]], dtype=np.int32)
PIECE = st.lists(st.integers(1, 3), max_size=2).map(tuple)
HISTORY = st.lists(st.integers(0, 3), max_size=9)


def encoder(**pieces: object) -> HistoryEncoder:
    return HistoryEncoder(Prompt(**pieces), PATHS)  # type: ignore[arg-type]


def test_a_history_is_prefix_then_items_joined_by_the_separator_then_suffix() -> None:
    spelled = encoder(prefix_ids=(1, 2), item_separator_ids=(5,), suffix_ids=(8, 9))
    assert spelled.encode([0, 2, 1]) == [1, 2, 10, 20, 5, 12, 22, 5, 11, 21, 8, 9]
    assert spelled.encode([3]) == [1, 2, 13, 23, 8, 9]
    assert spelled.encode([]) == [1, 2, 8, 9]
    assert encoder().encode([0, 0]) == [10, 20, 10, 20]


def test_rows_may_come_as_an_array() -> None:
    assert encoder().encode(np.array([0, 3])) == [10, 20, 13, 23]
    assert all(type(token) is int for token in encoder().encode(np.array([0, 3])))


@given(HISTORY, st.integers(1, 5), PIECE, PIECE, PIECE)
def test_only_the_newest_items_are_kept(
    rows: list[int], limit: int, prefix: tuple[int, ...], separator: tuple[int, ...], suffix: tuple[int, ...]
) -> None:
    pieces = {"prefix_ids": prefix, "item_separator_ids": separator, "suffix_ids": suffix}
    short = encoder(**pieces, max_history_items=limit)
    assert short.encode(rows) == encoder(**pieces, max_history_items=100).encode(rows[-limit:])
    assert len(short.encode(rows)) <= short.max_prompt_tokens
    assert len(short.encode([0] * limit)) == short.max_prompt_tokens


def test_the_target_is_the_path_of_the_item() -> None:
    assert encoder(prefix_ids=(1,)).target(2) == [12, 22]


@given(HISTORY, st.integers(0, 3))
def test_a_continuation_is_the_prompt_and_a_loss_on_the_target_alone(rows: list[int], target: int) -> None:
    coder = encoder(prefix_ids=(1,), item_separator_ids=(5,), suffix_ids=(9,), max_history_items=3)
    ids, labels = coder.continuation(rows, target)
    assert ids == coder.encode(rows) + coder.target(target)
    assert labels == [IGNORE] * len(coder.encode(rows)) + coder.target(target)


@given(HISTORY.filter(bool), PIECE, PIECE)
def test_each_item_of_a_window_comes_after_the_very_prompt_that_asks_for_it(
    rows: list[int], prefix: tuple[int, ...], separator: tuple[int, ...]
) -> None:
    pieces = {"prefix_ids": prefix, "item_separator_ids": separator, "suffix_ids": separator}
    coder = encoder(**pieces, max_history_items=8)
    ids, labels = coder.window(rows)
    starts = [place for place, label in enumerate(labels) if label in PATHS[:, 0]]
    first = len(rows) - len(starts)
    assert first == (1 if separator else 0)  # no prompt of an empty history stands before it
    for number, start in enumerate(starts, start=first):
        assert ids[:start] == coder.encode(rows[:number])
        assert labels[start : start + 2] == ids[start : start + 2] == coder.target(rows[number])
    assert sum(label != IGNORE for label in labels) == 2 * len(starts)
    assert len(ids) == len(labels)
    assert ids + list(separator) == encoder(**pieces, max_history_items=9).encode(rows)


def test_a_window_of_a_prompt_that_ends_otherwise_than_its_separator_is_refused() -> None:
    assert encoder(item_separator_ids=(5,), suffix_ids=(5,)).prompt.every_item_ends_a_prompt
    for pieces in (
        {"suffix_ids": (9,)},
        {"item_separator_ids": (5,)},
        {"item_separator_ids": (5,), "suffix_ids": (9,)},
    ):
        with pytest.raises(DataError, match="suffix equals its item separator"):
            encoder(**pieces).window([0, 1])


def test_a_window_longer_than_a_full_history_and_its_target_is_refused() -> None:
    coder = encoder(max_history_items=2)
    assert coder.window([0, 1, 2])[0] == [10, 20, 11, 21, 12, 22]
    with pytest.raises(DataError, match=r"a window of 4 items is longer than a history of 2 \+ 1"):
        coder.window([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ({"max_history_items": 0}, "needs room for at least one item"),
        ({"order": "newest_first"}, "'newest_first' is unknown"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(pieces: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Prompt(**pieces)  # type: ignore[arg-type]
