"""``fit.json``: how a fitting run went, for the report and its plot."""

import json
from dataclasses import asdict
from pathlib import Path

from training.fitting import CurvePoint, Fit

FILE = "fit.json"


def write_fit(directory: Path, fit: Fit, recall: float) -> None:
    """Write the curve, and the validation Recall@10 of the weights that were kept."""
    table = asdict(fit) | {"validation_recall@10": recall}
    (directory / FILE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def read_curve(directory: Path) -> tuple[CurvePoint, ...]:
    """The curve of a run; empty where the stage had nothing to fit."""
    file = directory / FILE
    if not file.is_file():
        return ()
    return tuple(CurvePoint(**point) for point in json.loads(file.read_text(encoding="utf-8"))["curve"])


def read_recall(directory: Path) -> float | None:
    """The validation Recall@10 of a run; None where the stage had nothing to fit."""
    file = directory / FILE
    return None if not file.is_file() else float(json.loads(file.read_text(encoding="utf-8"))["validation_recall@10"])
