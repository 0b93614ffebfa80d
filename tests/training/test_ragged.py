import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.ragged import Ragged, ranges

rows = st.lists(st.lists(st.integers(1, 99), max_size=5), min_size=1, max_size=6)


@given(rows, st.data())
def test_lines_are_rows_end_to_end_and_zero_beyond(lists: list[list[int]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.lists(st.integers(0, len(lists) - 1), max_size=4), min_size=1, max_size=4))
    chosen = np.array([row for line in wanted for row in line], dtype=np.int64)
    matrix, lengths = Ragged.of(lists).lines(chosen, np.array([len(line) for line in wanted]))
    expected = [[number for row in line for number in lists[row]] for line in wanted]
    assert lengths.tolist() == [len(line) for line in expected]
    assert matrix.shape == (len(expected), max(map(len, expected)))
    assert matrix.tolist() == [line + [0] * (matrix.shape[1] - len(line)) for line in expected]


@given(rows, st.integers(2, 5))
def test_numbers_are_left_out_of_their_rows(lists: list[list[int]], divisor: int) -> None:
    ragged = Ragged.of(lists)
    left = ragged.only(ragged.values % divisor != 0)
    assert [row.tolist() for row in left.rows()] == [[n for n in row if n % divisor] for row in lists]


@given(rows, rows)
def test_rows_of_several_are_stacked(first: list[list[int]], second: list[list[int]]) -> None:
    stacked = Ragged.stacked([Ragged.of(first), Ragged.of(second)])
    assert [row.tolist() for row in stacked.rows()] == first + second
    assert len(stacked) == len(first) + len(second)


def test_ranges_count_from_nought_each() -> None:
    assert ranges(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
