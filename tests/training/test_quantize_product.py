import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from tests.training.bench import RememberingProgress
from training.quantize_kmeans import KMeansFit
from training.quantize_product import ProductKMeans, allocate
from training.quantizer import ItemVectors

RNG = np.random.default_rng(0)


def product(rotate: bool, sizes: tuple[int, ...] = (4, 4)) -> ProductKMeans:
    return ProductKMeans(sizes, rotate, KMeansFit(1, 10_000, 20, 1), RememberingProgress())


def items(vectors: np.ndarray) -> ItemVectors:
    return ItemVectors([f"i{row}" for row in range(len(vectors))], vectors.astype(np.float32))


def test_without_rotation_a_level_looks_at_its_own_dimensions_only() -> None:
    vectors = RNG.normal(size=(80, 5))
    codes = product(rotate=False).quantize(items(vectors)).codes
    changed = vectors.copy()
    changed[:, 3:] = RNG.normal(size=(80, 2))  # five dimensions are cut into three and two
    again = product(rotate=False).quantize(items(changed)).codes
    assert (again[:, 0] == codes[:, 0]).all()
    assert (again[:, 1] != codes[:, 1]).any()


@pytest.mark.parametrize("rotate", [False, True])
def test_centroids_of_different_levels_stand_at_right_angles(rotate: bool) -> None:
    made = product(rotate, (4, 3, 5)).quantize(items(RNG.normal(size=(60, 7))))
    assert made.codebooks is not None
    first, second, third = made.codebooks.levels
    for left, right in ((first, second), (first, third), (second, third)):
        np.testing.assert_allclose(left @ right.T, 0, atol=1e-5)
    assert made.sizes == (4, 3, 5)
    assert (made.codes < (4, 3, 5)).all()


def test_rotation_helps_where_all_the_variance_lies_in_the_first_dimensions() -> None:
    vectors = RNG.normal(size=(400, 4)) * [10, 8, 0.1, 0.1]
    left = {rotate: product(rotate).quantize(items(vectors)).description["share_left_over"] for rotate in (False, True)}
    assert float(left[True]) < float(left[False]) * 0.5  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.integers(1, 6))
def test_every_direction_is_in_one_part_and_no_part_is_empty(variances: list[float], parts: int) -> None:
    parts = min(parts, len(variances))
    found = allocate(np.array(variances), parts)
    assert sorted(direction for part in found for direction in part) == list(range(len(variances)))
    assert all(found)


def test_fewer_dimensions_than_levels_are_refused() -> None:
    with pytest.raises(DataError, match="into 3 parts, but they have 2 dimensions"):
        product(False, (4, 4, 4)).quantize(items(RNG.normal(size=(9, 2))))
    with pytest.raises(DataError, match=r'"product" needs vectors'):
        product(False).quantize(items(np.zeros((3, 0))))
