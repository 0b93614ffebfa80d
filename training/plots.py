"""Pictures of a run: its curves, and the model beside the baselines. Knows numbers, not where they come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.fitting import CurvePoint

_LOSS, _VALIDATION, _RECALL = "#7f8c8d", "#2c6fbb", "#c0562f"
_METHODS = ("#2c6fbb", "#b8c4ce", "#8fa3b3", "#6c8294")


def plot_curves(file: Path, curves: Mapping[str, Sequence[CurvePoint]]) -> None:
    """Loss and validation Recall@10 over steps, one panel a stage."""
    if not curves:
        return
    figure = Figure(figsize=(5.5 * len(curves), 3.6), layout="constrained")
    for place, (stage, points) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), place)
        steps = [point.step for point in points]
        trained = [(point.step, point.training_loss) for point in points if point.training_loss is not None]
        axes.plot(*zip(*trained, strict=True), color=_LOSS, label="training loss") if trained else None
        axes.plot(steps, [point.validation_loss for point in points], color=_VALIDATION, label="validation loss")
        axes.set(title=stage, xlabel="step", ylabel="loss")
        recall = axes.twinx()
        recall.plot(steps, [point.validation_recall for point in points], color=_RECALL, label="validation recall@10")
        recall.set_ylabel("recall@10")
        recall.set_ylim(bottom=0)
        lines = [*axes.get_lines(), *recall.get_lines()]
        axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper center", fontsize=8, frameon=False)
    _save(figure, file)


def plot_comparison(file: Path, metrics: Mapping[str, Any]) -> None:
    """Bars with 95 % intervals: every metric, the model beside each baseline."""
    methods = {"model": metrics["test"], **metrics["baselines"]}
    names = list(metrics["test"])
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(methods)
    for place, (method, table) in enumerate(methods.items()):
        values = [table[name]["value"] for name in names]
        below = [max(table[name]["value"] - table[name]["low"], 0.0) for name in names]
        above = [max(table[name]["high"] - table[name]["value"], 0.0) for name in names]
        at = [index + (place - (len(methods) - 1) / 2) * width for index in range(len(names))]
        colour = _METHODS[min(place, len(_METHODS) - 1)]
        axes.bar(at, values, width, yerr=[below, above], color=colour, label=method.replace("_", " "), capsize=2)
    axes.set_xticks(range(len(names)), names)
    axes.set_title(f"test, {metrics['users']['test']:,} users, 95 % bootstrap intervals", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    for axes in figure.get_axes():
        axes.spines["top"].set_visible(False)
    # no creation date in the file, so that an equal run gives equal bytes
    figure.savefig(file, format="png", metadata={"Software": None})
