"""Stage `evaluate`: what the draft recommends to users whose next item is known, beside honest baselines.

Asks through `genrec.Recommender`, the code that answers online, with full ranking over the catalog and no sampled
negatives. Everything is printed whatever it is, with bootstrap intervals over users.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.bundle import load_draft
from genrec.recommender import Recommender
from training.ask import ask, check_catalog
from training.baseline_ranks import read_sasrec
from training.cases import all_cases, evaluation_cases, of_some_users
from training.fit_report import read_curve, read_recall
from training.likelihood import measure_likelihood
from training.metrics import IntArray, exposure
from training.plots import plot_buckets, plot_comparison, plot_coverage, plot_curves
from training.progress import Progress
from training.rank_table import MODEL, RankTable, read_ranks, write_ranks
from training.recipe_model import Evaluate
from training.results import (
    bucket_results,
    cutoffs_within,
    differences,
    headline_columns,
    headline_cutoff,
    likelihood_results,
    main_results,
    split_results,
)
from training.sequences import Sequences, load_sequences
from training.shown import shown_examples
from training.stage import Stage, StageContext

METRICS = "metrics.json"
EXAMPLES = "examples.json"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that was measured of one bundle.

    Attributes:
        metrics: What ``metrics.json`` holds.
        ranks: Split -> where each target stands, for the model and for every baseline.
        examples: Some answers with titles, as `shown_examples` gives them.
        recommended: (N,) how often each item of the data was recommended, within the headline cut-off.
        interactions: (N,) how often each occurs in training.
    """

    metrics: Mapping[str, Any]
    ranks: Mapping[str, RankTable]
    examples: Sequence[Mapping[str, Any]]
    recommended: IntArray
    interactions: IntArray


def run(context: StageContext) -> None:
    """`assemble`, `baselines` -> ``metrics.json``, ``ranks.parquet``, ``examples.json`` and plots."""
    recipe, inputs = context.recipe, context.inputs
    recommender = Recommender.of(load_draft(inputs["assemble"] / "draft", device="auto", dtype="float32"))
    sequences = load_sequences(inputs["prepare"])
    evaluation = measure(recommender, sequences, read_ranks(inputs["baselines"]), recipe.evaluate, context.progress)
    stages = {
        stage: {"validation": {"recall@10": recall}}
        for stage in ("pretrain", "finetune")
        if (recall := read_recall(inputs[stage])) is not None
    }
    sasrec = read_sasrec(inputs["baselines"])
    extra = {"stages": stages} | ({} if sasrec is None else {"sasrec": sasrec})
    write_evaluation(context.output, evaluation, extra)
    curves = {stage: read_curve(inputs[stage]) for stage in ("pretrain", "finetune")}
    plot_curves(context.output / "curves.png", {stage: curve for stage, curve in curves.items() if curve})
    for line in describe(evaluation.metrics):
        context.progress.say(line)


def measure(
    recommender: Recommender,
    sequences: Sequences,
    baselines: Mapping[str, RankTable],
    settings: Evaluate,
    progress: Progress,
) -> Evaluation:
    """A recommender on the very cases that the baselines were ranked on.

    Args:
        recommender: What is measured.
        sequences: The data.
        baselines: Split -> other methods' ranks on the cases of `evaluation_cases`; its splits are measured.
        settings: Cut-offs, users, seeds.
        progress: The display.
    """
    max_k = recommender.bundle.manifest.generation.max_k
    cutoffs = cutoffs_within(settings, max_k)
    cases = {split: evaluation_cases(sequences, split, settings) for split in baselines}
    asked = {
        split: ask(recommender, sequences, cases[split], max(cutoffs), settings.batch_size, progress, split)
        for split in baselines
    }
    ranks = {split: baselines[split].with_ranks({MODEL: asked[split].ranks}) for split in baselines}
    main = "test" if "test" in asked else "validation"
    walked = of_some_users(cases[main], settings.likelihood_users, settings.seed)
    likelihood = likelihood_results(measure_likelihood(recommender, sequences, walked, progress), settings)
    at = headline_cutoff(cutoffs)
    reached = exposure([items[:at] for items in asked[main].lists], len(sequences.item_ids))
    metrics = {
        **_tables(ranks, settings, cutoffs),
        "users": {split: len(set(table.users)) for split, table in ranks.items()},
        "cases": {split: len(table) for split, table in ranks.items()},
        "coverage": {
            "distinct_items": int(np.count_nonzero(reached)),
            "catalog_size": len(recommender.bundle.catalog),
            "k": at,
        },
        **({} if likelihood is None else {"likelihood": likelihood}),
        "protocol": _protocol(recommender, sequences, settings, cutoffs, ranks),
    }
    examples = shown_examples(
        recommender, sequences, evaluation_cases(sequences, "validation", settings), settings.examples, settings.seed
    )
    return Evaluation(metrics, ranks, examples, reached, sequences.training_counts())


def write_evaluation(directory: Path, evaluation: Evaluation, extra: Mapping[str, Any]) -> None:
    """``metrics.json``, with `extra` keys, what it was computed from, and pictures of it."""
    directory.mkdir(parents=True, exist_ok=True)
    metrics = {**evaluation.metrics, **extra}
    for name, content in ((METRICS, metrics), (EXAMPLES, evaluation.examples)):
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")
    write_ranks(directory, evaluation.ranks)
    plot_comparison(directory / "comparison.png", metrics)
    plot_buckets(directory / "buckets.png", metrics)
    plot_coverage(directory / "coverage.png", evaluation.recommended, evaluation.interactions)


def describe(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics as text: one line a method, then the model's lead over each, then the other split."""
    main, baselines, leads = main_results(metrics)
    names = headline_columns(metrics[main])
    methods = {MODEL: metrics[main], **baselines}
    users = f"{main}, {metrics['users'][main]:,} users"
    lines = [_line(users, names)]
    lines += [_line(method, [_cell(table[name]) for name in names]) for method, table in methods.items()]
    for other, lead in leads.items():
        lines.append(_line(f"model - {other}", [_signed(lead[name]) if name in lead else "" for name in names]))
    if main == "test" and "validation" in metrics:
        lines.append(_line("model, validation", [_cell(metrics["validation"][name]) for name in names]))
    return lines


def _tables(ranks: Mapping[str, RankTable], settings: Evaluate, cutoffs: Sequence[int]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for split, prefix in (("test", ""), ("validation", "validation_")):
        if split in ranks:
            tables[split], tables[f"{prefix}baselines"] = split_results(ranks[split], settings, cutoffs)
            tables[f"{prefix}differences"] = differences(ranks[split], settings, cutoffs)
    main = "test" if "test" in ranks else "validation"
    return {**tables, "buckets": {"split": main, **bucket_results(ranks[main], settings, cutoffs)}}


def _protocol(
    recommender: Recommender,
    sequences: Sequences,
    settings: Evaluate,
    cutoffs: Sequence[int],
    ranks: Mapping[str, RankTable],
) -> dict[str, Any]:
    asked = {split: len(set(table.users)) for split, table in ranks.items()}
    there = {split: len({case.user for case in all_cases(sequences, split)}) for split in ranks}
    sampled = [
        f"{asked[split]:,} of {there[split]:,} of {split}, drawn by seed {settings.seed}"
        for split in ranks
        if asked[split] < there[split]
    ]
    return {
        "ranking": "full catalog, items, seen items excluded",
        "users": "; ".join(sampled) or "all that have a held-out item",
        "num_beams": max(recommender.bundle.manifest.generation.num_beams, max(cutoffs)),
        "interval": "bootstrap over users, 95 %",
        "engine": recommender.engine_name,
        "items_the_bundle_does_not_know": check_catalog(recommender, sequences),
    }


def _line(first: str, cells: Sequence[str]) -> str:
    return f"{first:<32}" + "".join(f"{cell:>27}" for cell in cells)


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def _signed(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:+.4f} [{interval['low']:+.4f}, {interval['high']:+.4f}]"


STAGE = Stage(
    name="evaluate",
    needs=("prepare", "pretrain", "finetune", "assemble", "baselines"),
    section=lambda recipe: recipe.evaluate,
    run=run,
)
