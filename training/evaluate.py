"""Stage `evaluate`: what the draft recommends to users whose next item is known, beside honest baselines.

Asks through `genrec.Recommender`, the code that answers online, with full ranking over the catalog and no sampled
negatives. Everything is printed whatever it is, with bootstrap intervals over users.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.bundle import load_draft
from genrec.errors import DataError
from genrec.recommender import Recommender
from genrec.requests import Request
from training.baselines import markov_ranks, popularity_ranks
from training.corpus import sample
from training.fit_report import read_curve, read_recall
from training.metrics import Interval, Ranks, coverage, ranking_metrics
from training.plots import plot_comparison, plot_curves
from training.progress import Progress
from training.recipe_model import Evaluate
from training.sequences import EvaluationCase, Sequences, load_sequences
from training.stage import Stage, StageContext

METRICS = "metrics.json"
Table = dict[str, dict[str, float]]


def run(context: StageContext) -> None:
    """`assemble` -> ``metrics.json`` and plots."""
    recipe, inputs = context.recipe, context.inputs
    recommender = Recommender.of(load_draft(inputs["assemble"] / "draft", device="auto", dtype="float32"))
    metrics = measure(recommender, load_sequences(inputs["prepare"]), recipe.evaluate, recipe.seed, context.progress)
    metrics["stages"] = {
        stage: {"validation": {"recall@10": recall}}
        for stage in ("pretrain", "finetune")
        if (recall := read_recall(inputs[stage])) is not None
    }
    write_metrics(context.output, metrics)
    curves = {stage: read_curve(inputs[stage]) for stage in ("pretrain", "finetune")}
    plot_curves(context.output / "curves.png", {stage: curve for stage, curve in curves.items() if curve})
    for line in describe(metrics):
        context.progress.say(line)


def measure(
    recommender: Recommender, sequences: Sequences, settings: Evaluate, seed: int, progress: Progress
) -> dict[str, Any]:
    """Metrics of a recommender and of the baselines on the same users.

    Baselines learn from training interactions; ``markov_with_validation`` learns from validation too, since the model
    reads it in the history of a test user.
    """
    validation = _ask(recommender, sequences, sequences.validation_cases(), settings, seed, progress, "validation")
    test = _ask(recommender, sequences, sequences.test_cases(), settings, seed, progress, "test")

    def table(ranks: Ranks) -> Table:
        intervals = ranking_metrics(ranks, seed=seed, cutoffs=settings.cutoffs, resamples=settings.bootstrap_samples)
        return {name: _as_dict(interval) for name, interval in intervals.items()}

    training = sequences.training_sequences()
    num_items = len(sequences.item_ids)
    baselines = {
        "popularity": popularity_ranks(training, test.cases, num_items),
        "markov": markov_ranks(training, test.cases, num_items),
        "markov_with_validation": markov_ranks(sequences.sequences_before_test(), test.cases, num_items),
    }
    reached = coverage(test.recommended, len(recommender.bundle.catalog))
    return {
        "test": table(test.ranks),
        "validation": table(validation.ranks),
        "baselines": {name: table(ranks) for name, ranks in baselines.items()},
        "users": {"test": len(test.cases), "validation": len(validation.cases)},
        "coverage": {"distinct_items": reached.distinct_items, "catalog_size": reached.catalog_size},
        "protocol": {
            "ranking": "full catalog, items, seen items excluded",
            "num_beams": max(recommender.bundle.manifest.generation.num_beams, max(settings.cutoffs)),
            "interval": "bootstrap over users, 95 %",
            "engine": recommender.engine_name,
        },
    }


@dataclass(frozen=True, eq=False)
class _Answers:
    cases: Sequence[EvaluationCase]
    recommended: Sequence[np.ndarray]
    ranks: Ranks


def _ask(
    recommender: Recommender,
    sequences: Sequences,
    cases: Sequence[EvaluationCase],
    settings: Evaluate,
    seed: int,
    progress: Progress,
    label: str,
) -> _Answers:
    """Recommend to every case, in batches; items as rows of the sequences."""
    asked = sample(cases, settings.num_users, seed)
    row_of_id = {item_id: row for row, item_id in enumerate(sequences.item_ids)}
    k = max(settings.cutoffs)
    recommended: list[np.ndarray] = []
    with progress.task(f"evaluate {label}", len(asked)) as advance:
        for at in range(0, len(asked), settings.batch_size):
            batch = asked[at : at + settings.batch_size]
            requests = [
                Request([sequences.item_ids[row] for row in case.history], k=k, exclude_history=True) for case in batch
            ]
            for answer in recommender.recommend(requests):
                recommended.append(np.array([_row(row_of_id, item.item_id) for item in answer.items], dtype=np.int64))
            advance(len(batch))
    return _Answers(asked, recommended, Ranks.from_lists(recommended, [case.target for case in asked]))


def _row(row_of_id: Mapping[str, int], item_id: str) -> int:
    if item_id not in row_of_id:
        raise DataError(
            f"the bundle recommends item {item_id!r}, which the prepared data do not have; evaluate it on the data "
            "that its catalog was made of."
        )
    return row_of_id[item_id]


def write_metrics(directory: Path, metrics: Mapping[str, Any]) -> None:
    """``metrics.json`` and a picture of the comparison."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / METRICS).write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    plot_comparison(directory / "comparison.png", metrics)


def describe(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics as a table of text, one line a method."""
    names = list(metrics["test"])
    methods = {"model": metrics["test"], **metrics["baselines"]}
    head = f"{'test, ' + str(metrics['users']['test']) + ' users':<24}" + "".join(f"{name:>24}" for name in names)
    return [
        head,
        *(
            f"{name:<24}" + "".join(f"{_cell(table[metric]):>24}" for metric in names)
            for name, table in methods.items()
        ),
        f"{'model, validation':<24}" + "".join(f"{_cell(metrics['validation'][metric]):>24}" for metric in names),
    ]


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def _as_dict(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in asdict(interval).items()}


STAGE = Stage(
    name="evaluate",
    needs=("prepare", "pretrain", "finetune", "assemble"),
    section=lambda recipe: recipe.evaluate,
    run=run,
)
