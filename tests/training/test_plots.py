from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from training.fitting import CurvePoint
from training.plots import colour_of, plot_buckets, plot_comparison, plot_coverage, plot_curves

CURVE = (
    CurvePoint(5, 1.0, None, 3.0, 0.1),
    CurvePoint(10, 2.0, 2.5, 2.0, 0.2),
    CurvePoint(15, 3.0, 2.0, 2.2, 0.15),
)


def table(value: float) -> dict[str, dict[str, float]]:
    # an interval may lie beside its value where users are few
    cell = {"value": value, "low": value + 0.01, "high": value + 0.1}
    return {"recall@10": cell, "ndcg@10": cell}


METRICS: dict[str, Any] = {
    "test": table(0.2),
    "baselines": {name: table(0.1) for name in ("popularity", "markov", "markov_with_validation", "another")},
    "users": {"test": 10},
    "buckets": {
        kind: [
            {"bucket": label, "cases": 5, "methods": {"model": table(0.2), "markov": table(0.1)}} for label in labels
        ]
        for kind, labels in {"target_training_count": ["0", "1-4"], "history_length": ["5-9"]}.items()
    },
}
COUNTS = np.array([5, 0, 3, 1, 0])


def test_curves_have_a_panel_a_stage(tmp_path: Path) -> None:
    plot_curves(tmp_path / "one.png", {"finetune": CURVE})
    plot_curves(tmp_path / "two.png", {"pretrain": CURVE, "finetune": CURVE})
    one, two = (matplotlib.image.imread(tmp_path / name) for name in ("one.png", "two.png"))
    assert two.shape[0] == 2 * one.shape[0]
    assert two.shape[1] == one.shape[1]


def test_a_run_without_a_logged_training_loss_has_a_picture_too(tmp_path: Path) -> None:
    plot_curves(tmp_path / "curves.png", {"finetune": CURVE[:1]})
    assert matplotlib.image.imread(tmp_path / "curves.png").std() > 0


def test_without_a_curve_there_is_no_picture(tmp_path: Path) -> None:
    plot_curves(tmp_path / "curves.png", {})
    assert not (tmp_path / "curves.png").exists()


def test_the_comparison_takes_any_number_of_methods(tmp_path: Path) -> None:
    plot_comparison(tmp_path / "comparison.png", METRICS)
    assert matplotlib.image.imread(tmp_path / "comparison.png").std() > 0


def test_the_other_pictures_show_something_too(tmp_path: Path) -> None:
    plot_buckets(tmp_path / "buckets.png", METRICS)
    plot_coverage(tmp_path / "coverage.png", COUNTS, COUNTS[::-1])
    plot_coverage(tmp_path / "nothing.png", COUNTS * 0, COUNTS)
    for name in ("buckets.png", "coverage.png", "nothing.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0


def test_a_method_has_one_colour_and_an_unknown_one_has_too() -> None:
    named = ["model", "popularity", "markov", "markov_with_validation", "sasrec", "films 1a2b"]
    assert len({colour_of(method) for method in named}) == len(named)


@pytest.mark.parametrize("draw", [
    lambda file: plot_comparison(file, METRICS),
    lambda file: plot_buckets(file, METRICS),
    lambda file: plot_coverage(file, COUNTS, COUNTS),
    lambda file: plot_curves(file, {"finetune": CURVE}),
])  # fmt: skip
def test_equal_numbers_give_equal_bytes(tmp_path: Path, draw: Any) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
