from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from genrec.errors import DataError
from tests.training.bench import RememberingProgress
from training.codebooks import squared_distances
from training.quantize_balanced import BalancedKMeans, assign_bounded
from training.quantize_kmeans import KMeansFit
from training.quantizer import FloatArray, ItemVectors


def items(vectors: FloatArray) -> ItemVectors:
    return ItemVectors([f"i{row}" for row in range(len(vectors))], vectors)


def balanced(slack: float) -> BalancedKMeans:
    fit = KMeansFit(seed=1, fit_items=10_000, iterations=20, restarts=1)
    return BalancedKMeans((4, 4), slack, fit, RememberingProgress())


def skewed(count: int = 200) -> FloatArray:
    """Nine items of ten around one point."""
    rng = np.random.default_rng(0)
    far = rng.normal(0, 5, size=(count // 10, 3))
    return np.concatenate([rng.normal(0, 0.1, size=(count - len(far), 3)), far]).astype(np.float32)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 5), st.integers(0, 99))
@settings(deadline=None)
def test_no_centroid_has_more_points_than_it_may(points: int, centroids: int, room: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Many equal points: ties must end too.
    values = rng.integers(0, 3, size=(points, 2)).astype(np.float64)
    centres = rng.integers(0, 3, size=(centroids, 2)).astype(np.float32)
    capacity = ceil(points / centroids) + room
    codes = assign_bounded(values, centres, capacity)
    assert np.bincount(codes, minlength=centroids).max() <= capacity
    assert (codes == assign_bounded(values, centres, capacity)).all()


def test_the_total_distance_is_near_the_least_possible() -> None:
    rng = np.random.default_rng(3)
    points, centroids = rng.normal(size=(240, 4)), rng.normal(size=(8, 4)).astype(np.float32)
    costs = squared_distances(points, centroids)
    rows, places = linear_sum_assignment(np.repeat(costs, 30, axis=1))
    least = costs[rows, places // 30].sum()
    ours = costs[np.arange(240), assign_bounded(points, centroids, 30)].sum()
    assert least <= ours + 1e-9 < least * 1.03


def test_with_room_enough_everybody_has_the_nearest() -> None:
    rng = np.random.default_rng(3)
    points, centroids = rng.normal(size=(50, 4)), rng.normal(size=(8, 4)).astype(np.float32)
    nearest = squared_distances(points, centroids).argmin(axis=1)
    assert (assign_bounded(points, centroids, 50) == nearest).all()


@pytest.mark.parametrize("slack", [1.0, 1.5])
def test_clusters_of_every_level_are_bounded_where_k_means_would_make_one_of_most(slack: float) -> None:
    made = balanced(slack).quantize(items(skewed()))
    for level in range(2):
        counts = np.bincount(made.codes[:, level], minlength=made.sizes[level])
        assert counts.max() <= ceil(slack * 200 / made.sizes[level])
    assert made.description["largest_clusters"] == [int(np.bincount(column).max()) for column in made.codes.T]
    assert (made.codes == balanced(slack).quantize(items(skewed())).codes).all()


def test_the_share_left_over_is_that_of_the_codes() -> None:
    vectors = skewed()
    made = balanced(1.2).quantize(items(vectors))
    assert made.codebooks is not None
    left = made.codebooks.left_over(vectors.astype(np.float64), made.codes)
    share = (left**2).sum() / (vectors.astype(np.float64) ** 2).sum()
    assert abs(share - float(made.description["share_left_over"])) < 1e-3  # type: ignore[arg-type]


def test_without_vectors_there_is_nothing_to_quantize() -> None:
    with pytest.raises(DataError, match=r'"balanced_kmeans" needs vectors'):
        balanced(1.0).quantize(items(np.zeros((3, 0), dtype=np.float32)))
