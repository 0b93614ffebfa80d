"""Pictures of a run: its curves, the model beside the baselines, kinds of cases, coverage.

Knows numbers, not where they come from. Colours tell methods apart and stay the same from picture to picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.fitting import CurvePoint
from training.metrics import IntArray
from training.rank_table import MODEL
from training.results import headline_columns, main_results, method_name

_INK, _FAINT = "#24323f", "#dfe5ea"
_LOSS, _VALIDATION, _RECALL = "#98a4ae", "#2563a8", "#c2562d"
_COLOURS = {
    MODEL: "#2563a8",
    "popularity": "#d3dae0",
    "markov": "#a9b7c2",
    "markov_with_validation": "#72879a",
    "sasrec": "#e0935f",
}
_OTHER = "#8b6fb5"
_STYLE: dict[Any, Any] = {  # keys of matplotlib's rcParams
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#8795a1",
    "xtick.color": "#51606d",
    "ytick.color": "#51606d",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_DPI = 160


def colour_of(method: str) -> str:
    """The colour that a method has in every picture."""
    return _COLOURS.get(method, _OTHER)


def plot_curves(file: Path, curves: Mapping[str, Sequence[CurvePoint]]) -> None:
    """Loss and validation Recall@10 over steps, a row a stage; no picture where no stage was fitted."""
    if not curves:
        return
    with _picture(file, (9.0, 3.0 * len(curves))) as figure:
        panels = figure.subplots(len(curves), 2, squeeze=False)
        for (loss, recall), (stage, points) in zip(panels, curves.items(), strict=True):
            steps = [point.step for point in points]
            trained = [(point.step, point.training_loss) for point in points if point.training_loss is not None]
            marker = "o" if len(points) < 20 else None
            if trained:
                loss.plot(*zip(*trained, strict=True), color=_LOSS, label="training", marker=marker, markersize=3)
            validation = [point.validation_loss for point in points]
            loss.plot(steps, validation, color=_VALIDATION, label="validation", marker=marker, markersize=3)
            loss.set(title=f"{stage}: loss", xlabel="step")
            loss.legend()
            reached = [point.validation_recall for point in points]
            recall.plot(steps, reached, color=_RECALL, marker=marker, markersize=3)
            recall.set(title=f"{stage}: validation recall@10", xlabel="step")
            recall.set_ylim(0, max(*reached, 1e-3) * 1.15)
            for axes in (loss, recall):
                _grid(axes)


def plot_comparison(file: Path, metrics: Mapping[str, Any]) -> None:
    """Bars with 95 % intervals: recall and NDCG, the model beside each baseline."""
    main, baselines, _ = main_results(metrics)
    methods = {MODEL: metrics[main], **baselines}
    names = headline_columns(metrics[main])
    with _picture(file, (9.0, 3.6)) as figure:
        axes = figure.add_subplot()
        _bars(axes, methods, names)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(f"{main}, {metrics['users'][main]:,} users, 95 % bootstrap intervals")
        axes.legend(ncols=min(len(methods), 3))
        axes.margins(y=0.18)


def plot_buckets(file: Path, metrics: Mapping[str, Any]) -> None:
    """Recall for each kind of case, the model beside each baseline."""
    kinds = {
        "target_training_count": "by how often the target occurs in training",
        "history_length": "by length of the history",
    }
    with _picture(file, (9.0, 6.4)) as figure:
        for axes, (kind, title) in zip(figure.subplots(len(kinds), 1), kinds.items(), strict=True):
            rows = metrics["buckets"][kind]
            name = next(iter(rows[0]["methods"][MODEL]))
            labels = [row["bucket"] for row in rows]
            methods = {
                method: {label: row["methods"][method][name] for label, row in zip(labels, rows, strict=True)}
                for method in rows[0]["methods"]
            }
            _bars(axes, methods, labels)
            axes.set_xticks(range(len(rows)), [f"{row['bucket']}\n{row['cases']:,} cases" for row in rows])
            axes.set_title(f"{name} {title}")
            axes.margins(y=0.12)
        figure.get_axes()[0].legend(ncols=3)


def plot_coverage(file: Path, recommended: IntArray, interactions: IntArray) -> None:
    """Which share of recommendations, and of training interactions, the most frequent items have."""
    with _picture(file, (9.0, 3.4)) as figure:
        axes = figure.add_subplot()
        curves = {"recommendations": (recommended, _VALIDATION), "training interactions": (interactions, _LOSS)}
        for label, (counts, colour) in curves.items():
            shares = np.sort(counts)[::-1].cumsum() / max(int(counts.sum()), 1)
            axes.plot(np.arange(1, len(shares) + 1), shares, color=colour, label=label)
        axes.set(xscale="log", xlabel="items, most frequent first", ylim=(0, 1.02), xlim=(1, len(recommended)))
        axes.set_title("share that falls on the most frequent items")
        axes.legend(loc="upper left")
        _grid(axes)


def _bars(axes: Axes, methods: Mapping[str, Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> None:
    """A group a name, a bar a method, each with its interval."""
    width = 0.84 / len(methods)
    for place, (method, table) in enumerate(methods.items()):
        values = [table[name]["value"] for name in names]
        below = [max(table[name]["value"] - table[name]["low"], 0.0) for name in names]
        above = [max(table[name]["high"] - table[name]["value"], 0.0) for name in names]
        at = [index + (place - (len(methods) - 1) / 2) * width for index in range(len(names))]
        whiskers = {"capsize": 2, "ecolor": "#51606d", "elinewidth": 0.9, "capthick": 0.9}
        label = method_name(method)
        axes.bar(at, values, width * 0.92, yerr=[below, above], color=colour_of(method), label=label, error_kw=whiskers)
    axes.yaxis.grid(visible=True, color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)


def _grid(axes: Axes) -> None:
    axes.grid(visible=True, color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


@contextmanager
def _picture(file: Path, inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure of our style, saved when the block ends."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        yield figure
        for axes in figure.get_axes():
            axes.spines[["top", "right"]].set_visible(False)
        # no creation date in the file, so that an equal run gives equal bytes
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
