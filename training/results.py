"""From ranks to the tables of ``metrics.json``: metrics, differences, buckets, each with its interval.

Knows numbers and names of methods; no model, no file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from training.buckets import HISTORY_LENGTHS, TARGET_COUNTS, buckets
from training.likelihood import Likelihood
from training.metrics import METRICS, FloatArray, Interval, Ranks, bootstrap, ranking_metrics
from training.rank_table import MODEL, RankTable
from training.recipe_model import Evaluate

Table = dict[str, dict[str, float]]

_NAMES = {
    MODEL: "this bundle",
    "markov": "Markov chain",
    "markov_with_validation": "Markov chain, from validation too",
    "sasrec": "SASRec",
}

SPOKEN_CUTOFF = 10
"""Where one number must do, it is at 10, as in published tables; or at the largest cut-off, if 10 is none."""


def method_name(method: str) -> str:
    """A method as a reader reads it."""
    return _NAMES.get(method, method.replace("_", " "))


def cutoffs_within(settings: Evaluate, max_k: int) -> tuple[int, ...]:
    """The cut-offs that a bundle of this `max_k` can be measured at: those asked for, else its longest list."""
    return tuple(k for k in settings.cutoffs if k <= max_k) or (max_k,)


def headline_cutoff(cutoffs: Sequence[int]) -> int:
    """The cut-off of differences, buckets and coverage."""
    return SPOKEN_CUTOFF if SPOKEN_CUTOFF in cutoffs else max(cutoffs)


def headline_names(cutoffs: Sequence[int]) -> tuple[str, str]:
    """The metrics of differences and buckets."""
    at = headline_cutoff(cutoffs)
    return f"recall@{at}", f"ndcg@{at}"


def main_results(metrics: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """The split that counts, its baselines, and the model's lead over them: test, or validation if that is all."""
    main, prefix = ("test", "") if "test" in metrics else ("validation", "validation_")
    return main, metrics.get(f"{prefix}baselines", {}), metrics.get(f"{prefix}differences", {})


def headline_columns(table: Mapping[str, Any]) -> list[str]:
    """Recall and NDCG at 5 and 10, as in published tables; where neither was measured, at the largest cut-off."""
    cutoffs = [int(name.partition("@")[2]) for name in table if name.startswith("recall@")]
    shown = [k for k in cutoffs if k in (5, 10)] or [max(cutoffs)]
    return [f"{metric}@{k}" for k in shown for metric in ("recall", "ndcg")]


def split_results(table: RankTable, settings: Evaluate, cutoffs: Sequence[int]) -> tuple[Table, dict[str, Table]]:
    """Every metric of the model, and of each other method, with intervals over users."""
    users, seed, resamples = table.user_numbers, settings.seed, settings.bootstrap_samples
    tables = {
        method: _rounded(ranking_metrics(ranks, seed=seed, cutoffs=cutoffs, users=users, resamples=resamples))
        for method, ranks in table.ranks.items()
    }
    return tables.pop(MODEL), tables


def differences(table: RankTable, settings: Evaluate, cutoffs: Sequence[int]) -> dict[str, Table]:
    """Other method -> the model's lead over it on the same cases, by the paired bootstrap; negative: it is behind."""
    names = headline_names(cutoffs)
    return {
        other: _rounded({name: paired(table, MODEL, other, name, settings) for name in names})
        for other in table.ranks
        if other != MODEL
    }


def paired(table: RankTable, one: str, other: str, name: str, settings: Evaluate) -> Interval:
    """The mean of one method less that of another, with the interval of the differences of each user."""
    lead = metric_values(table.ranks[one], name) - metric_values(table.ranks[other], name)
    return _interval(lead, table, settings)


def metric_values(ranks: Ranks, name: str) -> FloatArray:
    """(C,) the metric of that name, such as ``recall@10``, of each case."""
    metric, _, cutoff = name.partition("@")
    return METRICS[metric](ranks, int(cutoff))


def bucket_results(table: RankTable, settings: Evaluate, cutoffs: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Kind of bucket -> its buckets, each with its cases and every method's headline metrics."""
    kinds = {
        "target_training_count": (table.target_counts, TARGET_COUNTS),
        "history_length": (table.history_lengths, HISTORY_LENGTHS),
    }
    return {
        kind: [
            {"bucket": bucket.label, "cases": int(bucket.chosen.sum())}
            | {"methods": _bucket_methods(table.only(bucket.chosen), settings, headline_names(cutoffs))}
            for bucket in buckets(values, starts)
        ]
        for kind, (values, starts) in kinds.items()
    }


def likelihood_results(likelihood: Likelihood, settings: Evaluate) -> dict[str, Any] | None:
    """Per level and for the whole item; None where no target could be walked."""
    if not likelihood.cases:
        return None
    whole = bootstrap(likelihood.log_likelihoods.sum(1), seed=settings.seed, resamples=settings.bootstrap_samples)
    levels = zip(likelihood.hits.mean(0).tolist(), likelihood.log_likelihoods.mean(0).tolist(), strict=True)
    return {
        "cases": len(likelihood.cases),
        "item_log_likelihood": rounded(whole),
        "levels": [
            {"level": level, "accuracy": round(accuracy, 6), "log_likelihood": round(nats, 6)}
            for level, (accuracy, nats) in enumerate(levels)
        ],
    }


def rounded(interval: Interval) -> dict[str, float]:
    """As it stands in JSON."""
    return {"value": round(interval.value, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}


def _bucket_methods(table: RankTable, settings: Evaluate, names: Sequence[str]) -> dict[str, Table]:
    return {
        method: {name: rounded(_interval(metric_values(ranks, name), table, settings)) for name in names}
        for method, ranks in table.ranks.items()
    }


def _interval(values: FloatArray, table: RankTable, settings: Evaluate) -> Interval:
    return bootstrap(values, seed=settings.seed, users=table.user_numbers, resamples=settings.bootstrap_samples)


def _rounded(intervals: Mapping[str, Interval]) -> Table:
    return {name: rounded(interval) for name, interval in intervals.items()}
