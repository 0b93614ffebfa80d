import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.quantize_health import clusters, entropy_bits, gini, level_health

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any)


@given(COUNTS)
def test_gini_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    values = np.array(counts)
    differences = np.abs(values[:, None] - values[None]).mean()
    assert gini(values) == pytest.approx(differences / (2 * values.mean()), abs=1e-9)


@given(COUNTS)
def test_entropy_lies_between_none_and_that_of_equal_use(counts: list[int]) -> None:
    entropy = entropy_bits(np.array(counts))
    assert -1e-12 <= entropy <= np.log2(len(counts)) + 1e-9


def test_known_values() -> None:
    assert entropy_bits(np.array([5, 5, 5, 5])) == pytest.approx(2)
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 20])) == pytest.approx(0.75)


def test_each_level_tells_how_many_codes_are_in_use() -> None:
    codes = np.array([[0, 0], [0, 0], [2, 0]], dtype=np.int32)
    first, second = level_health(codes, [4, 1])
    assert (first["size"], first["codes_used"]) == (4, 2)
    assert second == {"level": 1, "size": 1, "codes_used": 1, "entropy_bits": 0, "entropy_share": 1.0, "gini": 0}


def test_clusters_are_the_largest_groups_with_their_most_popular_titles() -> None:
    codes = np.array([[0, 0], [1, 0], [1, 1], [1, 0]], dtype=np.int32)
    titles, popularity = ["A", "B", "C", "D"], np.array([9, 1, 2, 3])
    first, second = clusters(codes, titles, popularity, depth=1)
    assert first == {"codes": [1], "items": 3, "titles": ["D", "C", "B"]}
    assert second == {"codes": [0], "items": 1, "titles": ["A"]}
    assert clusters(codes, titles, popularity, depth=2)[0]["codes"] == [1, 0]
