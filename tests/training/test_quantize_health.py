from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import TrainingError
from training.quantize_health import check_gates, clusters, entropy_bits, gini, level_health, prefix_health
from training.recipe_quantize import Gates

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
    assert (first["size"], first["codes_used"], first["dead_codes"]) == (4, 2, 2)
    # Three items could use three of the four codes.
    assert first["utilisation"] == pytest.approx(2 / 3, abs=1e-4)
    assert first["entropy_share"] == pytest.approx(first["entropy_bits"] / np.log2(3), abs=1e-4)
    assert first["perplexity"] == pytest.approx(2 ** first["entropy_bits"], abs=0.01)
    assert (second["utilisation"], second["entropy_bits"], second["entropy_share"], second["gini"]) == (1, 0, 1, 0)


def test_each_depth_tells_how_many_items_have_one_prefix() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [2, 0]], dtype=np.int32)
    first, second = prefix_health(codes)
    assert (first["prefixes_used"], first["items_of_a_prefix"], first["items_of_the_fullest"]) == (2, 2, 3)
    assert (second["prefixes_used"], second["share_of_the_fullest"]) == (3, 0.5)


def collapsed(items: int = 100) -> np.ndarray:
    """All items but one have the codes 0, 0; of eight codes level 1 uses one."""
    codes = np.zeros((items, 2), dtype=np.int32)
    codes[0] = [1, 0]
    return codes


@pytest.mark.parametrize(
    ("gates", "sentence"),
    [
        (
            {"min_utilisation": 0.2},
            r"level 1 uses 1 of its 8 codes, a utilisation of 0\.125, below .*min_utilisation = 0\.2",
        ),
        ({"min_entropy": 0.1}, r"level 0 have 0\.0\d+ of the most possible entropy, below .*min_entropy = 0\.1"),
        (
            {"max_first_code_share": 0.9},
            r"99 items have one code of level 0, a share of 0\.99, above .*first_code_share = 0\.9",
        ),
        (
            {"max_collision_share": 0.5},
            r"a share of 0\.9900 of the items .* levels 0 to 1 .*max_collision_share = 0\.5",
        ),
    ],
)
def test_a_gate_names_the_level_the_value_and_the_mend_and_can_be_loosened(
    gates: dict[str, Any], sentence: str
) -> None:
    off = {"min_utilisation": 0.0, "min_entropy": 0.0, "max_first_code_share": 1.0, "max_collision_share": 1.0}
    check_gates(Gates(**off), collapsed(), (2, 8), Path("report.md"))
    with pytest.raises(TrainingError, match=rf"{sentence}.*; use .*loosen the gate.*Figures: report\.md"):
        check_gates(Gates(**{**off, **gates}), collapsed(), (2, 8), Path("report.md"))


def test_all_gates_that_are_not_passed_are_counted() -> None:
    with pytest.raises(TrainingError, match="and 3 more"):
        check_gates(Gates(), collapsed(), (2, 8), Path("report.md"))


def test_codes_of_few_items_may_use_few_of_many() -> None:
    check_gates(Gates(), np.array([[0, 3], [5, 1], [9, 0]], dtype=np.int32), (256, 256), Path("report.md"))


def test_clusters_are_the_largest_groups_with_their_most_popular_titles() -> None:
    codes = np.array([[0, 0], [1, 0], [1, 1], [1, 0]], dtype=np.int32)
    titles, popularity = ["A", "B", "C", "D"], np.array([9, 1, 2, 3])
    first, second = clusters(codes, titles, popularity, depth=1)
    assert first == {"codes": [1], "items": 3, "titles": ["D", "C", "B"]}
    assert second == {"codes": [0], "items": 1, "titles": ["A"]}
    assert clusters(codes, titles, popularity, depth=2)[0]["codes"] == [1, 0]
