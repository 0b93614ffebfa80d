import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from training.quantize_collisions import (
    MAX_COLLISION_CODES,
    Collisions,
    collision_level,
    count_collisions,
    reassign_last_code,
)


def codes_of(rows: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def test_within_a_group_the_most_popular_item_comes_first_and_ties_follow_the_id() -> None:
    codes = codes_of([(0, 1), (0, 1), (2, 2), (0, 1), (0, 1)])
    level = collision_level(codes, np.array([5, 9, 0, 5, 5]), ["d", "a", "x", "c", "b"])
    assert level is not None
    assert level.tolist() == [3, 0, 0, 2, 1]
    assert count_collisions(codes) == Collisions(items=4, groups=1, largest=4)


def test_unique_codes_need_no_further_level() -> None:
    codes = codes_of([(0, 1), (0, 2)])
    assert collision_level(codes, np.array([1, 1]), ["a", "b"]) is None
    assert count_collisions(codes) == Collisions(items=0, groups=0, largest=1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=40))
def test_with_the_level_codes_are_unique_and_dense_within_each_group(rows: list[tuple[int, int, int]]) -> None:
    codes = codes_of([row[:2] for row in rows])
    ids = [f"i{number:02d}" for number in range(len(rows))]
    level = collision_level(codes, np.array([row[2] for row in rows]), ids)
    if level is None:
        assert len(np.unique(codes, axis=0)) == len(codes)
        return
    assert count_collisions(np.concatenate([codes, level[:, None]], axis=1)).items == 0
    for code in np.unique(codes, axis=0):
        group = (codes == code).all(axis=1)
        assert sorted(level[group]) == list(range(group.sum()))


def test_a_group_that_is_too_large_is_named() -> None:
    size = MAX_COLLISION_CODES + 1
    codes = codes_of([(7, 3)] * size)
    ids = [f"i{number}" for number in range(size)]
    assert collision_level(codes[1:], np.zeros(size - 1), ids[1:]) is not None
    with pytest.raises(DataError, match=r"1,025 items share the semantic ID \(7, 3\) \('i0', .*codebook_sizes"):
        collision_level(codes, np.zeros(size), ids)


def test_reassigning_gives_twins_the_nearest_free_codes() -> None:
    books = [np.array([[0.0]], dtype=np.float32), np.array([[0.0], [1.0], [5.0]], dtype=np.float32)]
    vectors = np.array([[0.1], [0.2], [5.0]], dtype=np.float32)  # both of the first two are nearest to 0.0
    codes = np.array([[0, 0], [0, 0], [0, 2]], dtype=np.int32)
    unique, moved = reassign_last_code(codes, vectors, books)
    assert unique.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert moved == 1


def test_a_prefix_with_more_items_than_codes_is_left_to_the_collision_level() -> None:
    books = [np.zeros((1, 1), dtype=np.float32), np.zeros((2, 1), dtype=np.float32)]
    codes = np.zeros((3, 2), dtype=np.int32)
    unique, moved = reassign_last_code(codes, np.zeros((3, 1), dtype=np.float32), books)
    assert unique.tolist() == codes.tolist() and moved == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-3, 3, width=32)), min_size=1, max_size=12))
def test_reassigned_codes_are_unique_and_keep_the_prefix(items: list[tuple[int, float]]) -> None:
    first = np.array([prefix for prefix, _ in items], dtype=np.int32)
    books = [np.zeros((3, 1), dtype=np.float32), np.linspace(-3, 3, 12, dtype=np.float32)[:, None]]
    vectors = np.array([[value] for _, value in items], dtype=np.float32)
    nearest = np.abs(vectors - books[1].T).argmin(axis=1).astype(np.int32)
    codes = np.stack([first, nearest], axis=1)
    unique, _ = reassign_last_code(codes, vectors, books)
    assert unique[:, 0].tolist() == first.tolist()
    assert count_collisions(unique).items == 0
