from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from training.fitting import CurvePoint
from training.plots import plot_comparison, plot_curves

CURVE = (
    CurvePoint(5, 1.0, None, 3.0, 0.1),
    CurvePoint(10, 2.0, 2.5, 2.0, 0.2),
    CurvePoint(15, 3.0, 2.0, 2.2, 0.15),
)


def table(value: float) -> dict[str, dict[str, float]]:
    # an interval may lie beside its value where users are few
    return {"recall@10": {"value": value, "low": value + 0.01, "high": value + 0.1}}


METRICS: dict[str, Any] = {
    "test": table(0.2),
    "baselines": {name: table(0.1) for name in ("popularity", "markov", "markov_with_validation", "another")},
    "users": {"test": 10},
}


def test_curves_have_a_panel_a_stage(tmp_path: Path) -> None:
    plot_curves(tmp_path / "one.png", {"finetune": CURVE})
    plot_curves(tmp_path / "two.png", {"pretrain": CURVE, "finetune": CURVE})
    one, two = (matplotlib.image.imread(tmp_path / name) for name in ("one.png", "two.png"))
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] == 2 * one.shape[1]


def test_a_run_without_a_logged_training_loss_has_a_picture_too(tmp_path: Path) -> None:
    plot_curves(tmp_path / "curves.png", {"finetune": CURVE[:1]})
    assert matplotlib.image.imread(tmp_path / "curves.png").std() > 0


def test_without_a_curve_there_is_no_picture(tmp_path: Path) -> None:
    plot_curves(tmp_path / "curves.png", {})
    assert not (tmp_path / "curves.png").exists()


def test_the_comparison_takes_any_number_of_methods(tmp_path: Path) -> None:
    plot_comparison(tmp_path / "comparison.png", METRICS)
    assert matplotlib.image.imread(tmp_path / "comparison.png").std() > 0


@pytest.mark.parametrize("draw", [
    lambda file: plot_comparison(file, METRICS),
    lambda file: plot_curves(file, {"finetune": CURVE}),
])  # fmt: skip
def test_equal_numbers_give_equal_bytes(tmp_path: Path, draw: Any) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
