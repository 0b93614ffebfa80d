from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from training.codebooks import Codebooks, nearest
from training.quantize_collisions import (
    Collisions,
    collision_level,
    count_collisions,
    make_unique,
    nearest_free,
    reassign_last_code,
)
from training.quantizer import Codes, FloatArray, ItemVectors
from training.recipe_quantize import Quantize

LINE = (np.zeros((1, 1), dtype=np.float32), np.arange(8, dtype=np.float32)[:, None])
"""One prefix, and eight last codes at 0, 1, … 7."""


def codes_of(rows: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def line(*values: float) -> tuple[Codes, ItemVectors]:
    """Items of one dimension and the codes that `LINE` gives them."""
    vectors: FloatArray = np.array(values, dtype=np.float32)[:, None]
    books = Codebooks(LINE)
    codes = books.assign(books.encode(vectors))
    return Codes(codes, books.sizes, {}, books), ItemVectors([f"i{row:02d}" for row in range(len(values))], vectors)


def unique(made: tuple[Codes, ItemVectors], **section: Any) -> Any:
    popularity = np.arange(len(made[0].codes))[::-1]
    return make_unique(made[0], Quantize(codebook_sizes=(2, 8), **section), made[1], popularity)


def test_within_a_group_the_most_popular_item_comes_first_and_ties_follow_the_id() -> None:
    codes = codes_of([(0, 1), (0, 1), (2, 2), (0, 1), (0, 1)])
    level = collision_level(codes, np.array([5, 9, 0, 5, 5]), ["d", "a", "x", "c", "b"])
    assert level.tolist() == [3, 0, 0, 2, 1]
    assert count_collisions(codes) == Collisions(items=4, groups=1, largest=4)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=40), st.randoms()
)
def test_with_the_level_codes_are_unique_dense_and_follow_the_item_wherever_it_stands(
    rows: list[tuple[int, int, int]], random: Any
) -> None:
    codes = codes_of([row[:2] for row in rows])
    popularity = np.array([row[2] for row in rows])
    ids = [f"i{number:02d}" for number in range(len(rows))]
    level = collision_level(codes, popularity, ids)
    assert count_collisions(np.concatenate([codes, level[:, None]], axis=1)).items == 0
    for code in np.unique(codes, axis=0):
        group = (codes == code).all(axis=1)
        assert sorted(level[group]) == list(range(group.sum()))
    order = random.sample(range(len(rows)), len(rows))
    moved = collision_level(codes[order], popularity[order], [ids[row] for row in order])
    assert moved.tolist() == level[order].tolist()


def test_a_level_is_added_with_spare_codes_that_no_item_has() -> None:
    made = unique(line(1, 1, 1, 4), spare_codes=3)
    assert made.codes.tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 2], [0, 4, 0]]
    assert made.sizes == (1, 8, 6)
    assert made.has_collision_level
    assert "3 items shared 1 semantic IDs: a collision level of 3 codes was added, and 3 spare" in made.notes[0]


def test_unique_codes_need_no_further_level_whatever_the_recipe_says() -> None:
    for policy in ("level", "reassign", "nearest", "refuse"):
        made = unique(line(1, 2), collisions=policy)
        assert (made.codes.tolist(), made.sizes, made.has_collision_level) == ([[0, 1], [0, 2]], (1, 8), False)


def test_a_level_that_would_be_too_wide_is_refused_and_names_the_largest_group() -> None:
    assert unique(line(1, 1, 1), max_collision_codes=3).has_collision_level
    with pytest.raises(
        DataError, match=r"3 items share the semantic ID \(0, 1\) \('i00', 'i01', 'i02'\), more than the 2"
    ):
        unique(line(1, 1, 1, 4), max_collision_codes=2)


def test_thousands_of_variants_with_one_text_do_not_widen_a_level_and_can_be_spread() -> None:
    rng = np.random.default_rng(0)
    books = Codebooks(tuple(rng.normal(size=(16, 4)).astype(np.float32) for _ in range(3)))
    vectors = np.concatenate([np.ones((2000, 4)), rng.normal(size=(500, 4))]).astype(np.float32)
    codes = books.assign(books.encode(vectors))
    made = (Codes(codes, books.sizes, {}, books), ItemVectors([f"i{row:04d}" for row in range(2500)], vectors))
    with pytest.raises(DataError, match=r"2,0\d\d items share .*max_collision_codes.*\"nearest\""):
        unique(made)
    spread = unique(made, collisions="nearest")
    assert not spread.has_collision_level
    assert count_collisions(spread.codes).items == 0
    assert (spread.codes < 16).all()


def test_refusing_names_the_largest_group() -> None:
    with pytest.raises(
        DataError, match=r"2 items share the semantic ID \(0, 1\) \('i01', 'i02'\), and quantize.collisions"
    ):
        unique(line(5, 1, 1), collisions="refuse")


def test_the_nearest_free_code_goes_to_all_but_the_most_popular() -> None:
    made, items = line(3.0, 3.1, 2.9, 4.0)
    assert made.codes[:, 1].tolist() == [3, 3, 3, 4]
    assert made.codebooks is not None
    points = made.codebooks.encode(items.vectors)
    codes = nearest_free(made.codes, points, made.codebooks, np.array([1, 0, 2, 3]))
    # Codes that some item has are tried first, and 4 is taken: so 2, at a distance of 1.0, then 1.
    assert codes[:, 1].tolist() == [2, 3, 1, 4]


@given(st.lists(st.floats(-1, 8, width=32), min_size=1, max_size=8), st.randoms())
def test_the_nearest_free_codes_are_unique_and_follow_the_item_wherever_it_stands(
    values: list[float], random: Any
) -> None:
    made, items = line(*values)
    assert made.codebooks is not None
    points = made.codebooks.encode(items.vectors)
    found = nearest_free(made.codes, points, made.codebooks, np.arange(len(values)))
    assert count_collisions(found).items == 0
    order = random.sample(range(len(values)), len(values))
    moved = nearest_free(made.codes[order], points[order], made.codebooks, np.argsort(order))
    assert moved.tolist() == found[order].tolist()


def test_more_items_than_codes_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"no semantic ID is free.*quantize\.codebook_sizes"):
        unique(line(*[1.0] * 9), collisions="nearest")


def test_reassigning_gives_twins_the_nearest_free_codes() -> None:
    books = [np.array([[0.0]], dtype=np.float32), np.array([[0.0], [1.0], [5.0]], dtype=np.float32)]
    points = np.array([[0.1], [0.2], [5.0]])  # both of the first two are nearest to 0.0
    codes = np.array([[0, 0], [0, 0], [0, 2]], dtype=np.int32)
    assert reassign_last_code(codes, points, books).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_a_prefix_with_more_items_than_codes_is_left_to_the_collision_level() -> None:
    made = unique(line(*[2.0] * 9, 5.0), collisions="reassign")
    assert made.codes[:, 1].tolist() == [2] * 9 + [5]
    assert made.has_collision_level


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-3, 3, width=32)), min_size=1, max_size=12))
def test_reassigned_codes_are_unique_and_keep_the_prefix(items: list[tuple[int, float]]) -> None:
    first = np.array([prefix for prefix, _ in items], dtype=np.int32)
    books = [np.zeros((3, 1), dtype=np.float32), np.linspace(-3, 3, 12, dtype=np.float32)[:, None]]
    points = np.array([[value] for _, value in items])
    codes = np.stack([first, nearest(points, books[1])], axis=1)
    found = reassign_last_code(codes, points, books)
    assert found[:, 0].tolist() == first.tolist()
    assert count_collisions(found).items == 0
