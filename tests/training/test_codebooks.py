from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from genrec.errors import DataError
from training.codebooks import Codebooks, Encoder, fit_to_codes, means, nearest, squared_distances

RNG = np.random.default_rng(0)
BOOKS = Codebooks(tuple(RNG.normal(size=(size, 3)).astype(np.float32) for size in (5, 4, 3)))
VECTORS = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-4, 4, width=16))


@given(VECTORS, st.randoms())
@settings(deadline=None)
def test_codes_are_within_the_sizes_and_follow_the_item_wherever_it_stands(vectors: np.ndarray, random: object) -> None:
    codes = BOOKS.assign(BOOKS.encode(vectors))
    assert (codes >= 0).all()
    assert (codes < BOOKS.sizes).all()
    order = random.sample(range(len(vectors)), len(vectors))  # type: ignore[attr-defined]
    assert (BOOKS.assign(BOOKS.encode(vectors[order])) == codes[order]).all()


@given(VECTORS)
@settings(deadline=None)
def test_every_level_takes_the_nearest_centroid_of_what_is_left(vectors: np.ndarray) -> None:
    points = BOOKS.encode(vectors)
    codes = BOOKS.assign(points)
    for level, book in enumerate(BOOKS.levels):
        left = BOOKS.left_over(points, codes[:, :level])
        distances = ((left[:, None] - book[None]) ** 2).sum(axis=2)
        chosen = distances[np.arange(len(codes)), codes[:, level]]
        np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-9)


def test_paths_around_a_point_are_all_there_are_and_the_nearest_comes_first() -> None:
    point = BOOKS.encode(np.array([[0.3, -0.2, 0.9]], dtype=np.float32))[0]
    paths = list(BOOKS.near_paths(point, depth=3))
    assert len(paths) == len(set(paths)) == 5 * 4 * 3
    distances = [(BOOKS.left_over(point[None], np.array([path])) ** 2).sum() for path in paths]
    assert distances[0] == min(distances)
    assert np.mean(distances[:10]) < np.mean(distances[-10:])
    assert list(BOOKS.near_paths(point, depth=0)) == [()]


def test_an_encoder_is_saved_and_gives_the_same_points(tmp_path: Path) -> None:
    layers = [RNG.normal(size=shape).astype(np.float32) for shape in ((6, 4), (3, 6))]
    biases = [RNG.normal(size=size).astype(np.float32) for size in (6, 3)]
    encoder = Encoder(np.ones(4, dtype=np.float32), np.full(4, 2, dtype=np.float32), tuple(layers), tuple(biases))
    books = Codebooks(BOOKS.levels, encoder)
    vectors = RNG.normal(size=(7, 4)).astype(np.float32)
    hidden = np.maximum((vectors - 1) / 2 @ layers[0].T + biases[0], 0)
    np.testing.assert_allclose(books.encode(vectors), hidden @ layers[1].T + biases[1], rtol=1e-5)
    books.save(tmp_path / "codebooks.safetensors")
    again = Codebooks.load(tmp_path / "codebooks.safetensors")
    assert (again.encode(vectors) == books.encode(vectors)).all()
    assert again.sizes == (5, 4, 3)
    assert again.dimensions == 4


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match="vectors of 2 dimensions cannot be quantized by codebooks made of 3"):
        BOOKS.encode(np.zeros((1, 2), dtype=np.float32))


@pytest.mark.parametrize(
    "tensors",
    [
        {"something": np.zeros((2, 2), dtype=np.float32)},
        {"codebook_0": np.zeros((2, 2), dtype=np.float32), "codebook_1": np.zeros((2, 3), dtype=np.float32)},
        {"codebook_0": np.array([[np.nan]], dtype=np.float32)},
    ],
)
def test_files_that_are_no_codebooks_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, tmp_path / "books.safetensors")
    with pytest.raises(DataError, match="no codebooks of one width"):
        Codebooks.load(tmp_path / "books.safetensors")
    (tmp_path / "books.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be read as codebooks"):
        Codebooks.load(tmp_path / "books.safetensors")


def test_centroids_for_given_codes_are_the_means_of_what_is_left() -> None:
    vectors = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], dtype=np.float32)
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32)
    books = fit_to_codes(vectors, codes, (2, 3))
    assert books.levels[0].tolist() == [[0, 1], [10, 1]]
    assert books.levels[1].tolist() == [[0, -1], [0, 1], [0, 0]]  # a code that no item has
    assert books.assign(books.encode(vectors)).tolist() == codes.tolist()


def test_distances_and_means_agree_with_their_definitions() -> None:
    points = RNG.normal(size=(9, 3))
    centroids = RNG.normal(size=(4, 3))
    np.testing.assert_allclose(
        squared_distances(points, centroids), ((points[:, None] - centroids[None]) ** 2).sum(axis=2), atol=1e-12
    )
    codes = nearest(points, centroids)
    for code, mean in enumerate(means(points, codes, 4)):
        if (codes == code).any():
            np.testing.assert_allclose(mean, points[codes == code].mean(axis=0), rtol=1e-5)
