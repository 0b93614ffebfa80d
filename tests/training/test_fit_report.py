from pathlib import Path

from training.fit_report import read_best_epoch, read_curve, read_recall, write_fit
from training.fitting import CurvePoint, Fit


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    curve = (CurvePoint(3, 0.5, None, 2.0, 0.1), CurvePoint(6, 1.0, 1.5, 1.75, 0.25))
    write_fit(tmp_path, Fit(6, 6, curve), 0.3125)
    assert read_curve(tmp_path) == curve
    assert read_recall(tmp_path) == 0.3125
    write_fit(tmp_path, Fit(6, 6, curve), None)
    assert read_recall(tmp_path) is None


def test_a_stage_that_fitted_nothing_has_no_curve(tmp_path: Path) -> None:
    assert read_curve(tmp_path) == ()
    assert read_recall(tmp_path) is None
    assert read_best_epoch(tmp_path) is None


def test_the_best_epoch_is_that_of_the_best_step(tmp_path: Path) -> None:
    curve = (CurvePoint(3, 0.5, None, 2.0, 0.1), CurvePoint(6, 1.0, 1.5, 1.75, 0.25))
    write_fit(tmp_path, Fit(6, 3, curve), 0.3125)
    assert read_best_epoch(tmp_path) == 0.5
    write_fit(tmp_path, Fit(6, 6, ()), None)
    assert read_best_epoch(tmp_path) is None
