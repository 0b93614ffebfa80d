import numpy as np
import pytest

from genrec.errors import DataError
from tests.training.bench import RememberingProgress
from training.quantize_kmeans import KMeansFit, RandomCodes, ResidualKMeans
from training.quantizer import FloatArray, ItemVectors


def items(vectors: FloatArray) -> ItemVectors:
    return ItemVectors([f"i{row}" for row in range(len(vectors))], vectors)


def kmeans(sizes: tuple[int, ...], seed: int = 1, fit_items: int = 10_000) -> ResidualKMeans:
    return ResidualKMeans(sizes, KMeansFit(seed, fit_items, iterations=50, restarts=2), RememberingProgress())


@pytest.fixture
def blobs() -> FloatArray:
    """120 points in 4 far groups of 3 near ones."""
    rng = np.random.default_rng(0)
    far = np.array([[10, 0], [0, 10], [-10, 0], [0, -10]])
    near = np.array([[1, 0], [0, 1], [-1, 0]])
    centres = (far[:, None] + near[None]).reshape(12, 2)
    return (np.repeat(centres, 10, axis=0) + rng.normal(0, 0.02, (120, 2))).astype(np.float32)


def test_the_first_level_finds_the_far_groups_and_the_second_the_near_ones(blobs: FloatArray) -> None:
    codes = kmeans((4, 3)).quantize(items(blobs)).codes
    assert codes.shape == (120, 2)
    assert codes.dtype == np.int32
    for start in range(0, 120, 30):
        assert len(set(codes[start : start + 30, 0])) == 1
    assert len(np.unique(codes, axis=0)) == 12


def test_codes_are_the_nearest_centroids_of_what_is_left_over(blobs: FloatArray) -> None:
    made = kmeans((4, 3)).quantize(items(blobs))
    assert made.codebooks is not None
    residual = blobs.copy()
    for level, book in enumerate(made.codebooks.levels):
        distances = ((residual[:, None] - book[None]) ** 2).sum(axis=2)
        assert (distances.argmin(axis=1) == made.codes[:, level]).all()
        residual = residual - book[made.codes[:, level]]
    left = (residual**2).sum() / (blobs**2).sum()
    assert abs(left - float(made.description["share_left_over"])) < 1e-3  # type: ignore[arg-type]


def test_a_seed_gives_the_same_codes_also_when_fitted_on_a_sample(blobs: FloatArray) -> None:
    for fit_items in (10_000, 40):
        first, second = (kmeans((4, 3), fit_items=fit_items).quantize(items(blobs)) for _ in range(2))
        assert (first.codes == second.codes).all()
        assert first.codebooks is not None
        assert second.codebooks is not None
        assert (first.codebooks.levels[0] == second.codebooks.levels[0]).all()


def test_a_level_has_no_more_codes_than_distinct_vectors_and_says_so() -> None:
    vectors = np.array([[1.0, 0]] * 5 + [[0, 1.0]] * 5, dtype=np.float32)
    made = kmeans((8, 8)).quantize(items(vectors))
    assert made.sizes == (2, 1)
    assert "Level 0 has 2 codes, not 8" in made.notes[0]


def test_points_that_differ_by_rounding_alone_are_one_code() -> None:
    noise = np.random.default_rng(0).uniform(-2e-7, 2e-7, size=(10, 2)).astype(np.float32)
    made = kmeans((8,)).quantize(items(np.array([[1.0, 0]] * 5 + [[0, 1.0]] * 5, dtype=np.float32) + noise))
    assert made.sizes == (2,)
    assert len(set(made.codes[:5, 0])) == len(set(made.codes[5:, 0])) == 1


def test_without_vectors_there_is_nothing_to_quantize() -> None:
    with pytest.raises(DataError, match=r"embed\.parts"):
        kmeans((4,)).quantize(items(np.zeros((3, 0), dtype=np.float32)))


def test_random_codes_follow_the_seed_and_fill_their_range() -> None:
    many = items(np.zeros((500, 0), dtype=np.float32))
    codes = RandomCodes((4, 8), seed=1).quantize(many).codes
    assert (codes == RandomCodes((4, 8), seed=1).quantize(many).codes).all()
    assert (codes != RandomCodes((4, 8), seed=2).quantize(many).codes).any()
    assert set(codes[:, 0]) == set(range(4))
    assert set(codes[:, 1]) == set(range(8))
