import numpy as np
import pytest
from scipy import sparse

from training import embed_part
from training.embed_part import reduce


def test_all_directions_of_a_small_matrix_are_kept_and_no_more() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 0]]))
    reduced = reduce(matrix, dimensions=64, seed=1)
    assert reduced.vectors.shape == (4, 2)
    np.testing.assert_allclose(reduced.vectors @ reduced.components, matrix.toarray(), atol=1e-6)
    assert abs(reduced.kept - 1) < 1e-6
    assert not reduced.vectors[3].any()


def test_the_power_bends_singular_values() -> None:
    matrix = sparse.csr_matrix(np.diag([9.0, 4.0]))
    lengths = np.linalg.norm(reduce(matrix, 2, seed=1, power=0.5).vectors, axis=1)
    np.testing.assert_allclose(lengths, [3, 2], rtol=1e-5)


def test_a_seed_gives_the_same_numbers_again() -> None:
    matrix = sparse.random(200, 80, density=0.1, random_state=0, format="csr")
    first, second = (reduce(matrix, 8, seed=3) for _ in range(2))
    assert (first.vectors == second.vectors).all()
    assert first.vectors.dtype == np.float32


def test_rounding_noise_in_an_empty_row_is_no_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(matrix: sparse.csr_matrix, n_components: int, **_: object) -> tuple[np.ndarray, ...]:
        left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
        return left + 1e-12, values, right

    monkeypatch.setattr(embed_part, "randomized_svd", noisy)
    matrix = sparse.csr_matrix(np.array([[1.0, 0], [0, 2], [0, 0]]))
    assert not reduce(matrix, 2, seed=1).vectors[2].any()
