import numpy as np
import pytest

from training.quantize_neighbours import Pairs, following_pairs, nearest_pairs, sharing

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 0]], dtype=np.int32)


def test_a_pair_shares_its_second_code_only_if_it_shares_the_first() -> None:
    pairs = Pairs(np.array([0, 0, 2, 0]), np.array([1, 2, 3, 3]))
    # 0 and 2 have code 0 of level 1 in common, but under other first codes.
    assert pairs.shared(CODES) == [0.5, 0.25]


def test_the_nearest_are_the_nearest_by_cosine_and_never_the_item_itself() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    vectors[7] = 0  # an item without a vector has no neighbours
    pairs = nearest_pairs(vectors, seed=1)
    assert pairs is not None
    assert 7 not in set(pairs.left) | set(pairs.right)
    assert (pairs.left != pairs.right).all()
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    likeness = unit[3] @ unit.T
    likeness[[3, 7]] = -1
    assert set(pairs.right[pairs.left == 3]) == set(np.argsort(-likeness)[:10])
    assert nearest_pairs(np.zeros((4, 0), dtype=np.float32), seed=1) is None


def test_following_items_are_different_and_within_one_history() -> None:
    pairs = following_pairs([np.array([0, 1, 1, 2], dtype=np.int32), np.array([3], dtype=np.int32)], seed=1)
    assert pairs is not None
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 1), (1, 2)]
    assert following_pairs([np.array([3], dtype=np.int32)], seed=1) is None
    assert following_pairs([], seed=1) is None


def test_chance_is_what_the_same_items_share_in_random_pairs() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(4, size=(200, 2)).astype(np.int32)
    together = Pairs(np.arange(199), np.arange(199))
    rows = sharing(codes, {"nearest": together, "following": None}, seed=1)
    assert [row["first_codes"] for row in rows] == [1, 2]
    assert rows[0]["nearest"] == 1
    assert rows[0]["nearest_by_chance"] == pytest.approx(0.25, abs=0.02)
    assert rows[1]["nearest_by_chance"] == pytest.approx(0.0625, abs=0.01)
    assert "following" not in rows[0]
    assert sharing(codes, {"nearest": None}, seed=1) == []
