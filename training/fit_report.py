"""``fit.json``: how a fitting run went, for the report and its plot."""

import json
from dataclasses import asdict
from pathlib import Path

from training.fitting import CurvePoint, Fit

FILE = "fit.json"


def write_fit(directory: Path, fit: Fit, recall: float | None) -> None:
    """Write the curve, and the validation Recall@10 of the weights that were kept; None where nothing was held out."""
    table = asdict(fit) | {"validation_recall@10": recall}
    (directory / FILE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def read_curve(directory: Path) -> tuple[CurvePoint, ...]:
    """The curve of a run; empty where the stage had nothing to fit."""
    file = directory / FILE
    if not file.is_file():
        return ()
    return tuple(CurvePoint(**point) for point in json.loads(file.read_text(encoding="utf-8"))["curve"])


def read_recall(directory: Path) -> float | None:
    """The validation Recall@10 of a run; None where the stage had nothing to fit or to validate."""
    file = directory / FILE
    recall = json.loads(file.read_text(encoding="utf-8"))["validation_recall@10"] if file.is_file() else None
    return None if recall is None else float(recall)


def read_best_epoch(directory: Path) -> float | None:
    """How far the run had come when its weights were best; None where the stage had nothing to fit or to validate."""
    file = directory / FILE
    if not file.is_file():
        return None
    best = json.loads(file.read_text(encoding="utf-8"))["best_step"]
    return next((point.epoch for point in read_curve(directory) if point.step == best), None)
