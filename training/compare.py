"""`genrec compare`: runs that differ by their seed, pooled, against their baselines or against other runs.

A case's value is its mean over the runs, and users are drawn by the bootstrap: the question is whether the lead holds
for other users, the seeds being averaged. Knows ``ranks.parquet`` and nothing else of a run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.errors import DataError
from training.fingerprint import write_durably
from training.metrics import METRICS, FloatArray, IntArray, bootstrap
from training.rank_table import FILE, MODEL, RankTable, read_ranks
from training.recipe_model import CUTOFFS
from training.results import headline_names, metric_values, rounded

SEED = 1
RESAMPLES = 10_000

Case = tuple[str, int]
"""A user's id and how many items went before: what names a case in every run."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Methods on the cases that all runs have: method -> metric -> (C,) means over runs."""

    users: IntArray
    values: Mapping[str, Mapping[str, FloatArray]]


def compare_runs(runs: Sequence[Path], against: Sequence[Path], split: str) -> dict[str, Any]:
    """Mean metrics of runs, and their lead over the methods beside them and over other runs.

    Args:
        runs: Each a work directory, or a directory with ``ranks.parquet``; of one thing, trained with several seeds.
        against: The same of another thing; may be empty.
        split: ``test`` or ``validation``.

    Returns:
        ``runs``, ``against``, ``split``, ``cases``, ``users``; ``each_run``: the model's headline metrics a run;
        ``methods``: pooled metrics; ``differences``: other method -> the pooled model's lead.

    Raises:
        DataError: A run has no ranks of that split, or they have no case in common.
    """
    tables, others = [_read(run, split) for run in runs], [_read(run, split) for run in against]
    cases = _common_cases([*tables, *others])
    names = [f"{metric}@{k}" for k in CUTOFFS for metric in METRICS]
    shared = [method for method in tables[0].ranks if all(method in table.ranks for table in tables)]
    values = {method: _pooled(tables, method, cases, names) for method in shared}
    if others:
        values["against"] = _pooled(others, MODEL, cases, names)
    pool = _Pool(np.unique([user for user, _ in cases], return_inverse=True)[1].astype(np.int64), values)
    return {
        "runs": [str(run) for run in runs],
        "against": [str(run) for run in against],
        "split": split,
        "cases": len(cases),
        "users": len({user for user, _ in cases}),
        "each_run": [_headline(table, cases) for table in tables],
        "methods": {method: _intervals(pool, method, None) for method in values},
        "differences": {method: _intervals(pool, MODEL, method) for method in values if method != MODEL},
    }


def describe_comparison(comparison: Mapping[str, Any]) -> list[str]:
    """As text: a line a method, then a line a difference."""
    names = headline_names(CUTOFFS)
    runs, users = len(comparison["runs"]), comparison["users"]
    head = f"{comparison['split']}, {users:,} users, {runs} run{'s' if runs > 1 else ''}"
    lines = [f"{head:<36}" + "".join(f"{name:>28}" for name in names)]
    for run, reached in zip(comparison["runs"], comparison["each_run"], strict=True):
        lines.append(f"{run[-34:]:<36}" + "".join(f"{reached[name]:>28.4f}" for name in names))
    for method, table in comparison["methods"].items():
        mean = "model, mean of runs" if method == MODEL else method
        lines.append(f"{mean:<36}" + "".join(f"{_cell(table[name], '.4f'):>28}" for name in names))
    for method, table in comparison["differences"].items():
        lines.append(f"{'model - ' + method:<36}" + "".join(f"{_cell(table[name], '+.4f'):>28}" for name in names))
    return lines


def write_comparison(file: Path, comparison: Mapping[str, Any]) -> None:
    """As JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_durably(file, json.dumps(comparison, indent=1, allow_nan=False) + "\n")


def _read(run: Path, split: str) -> RankTable:
    directory = run / "evaluate" if (run / "evaluate" / FILE).is_file() else run
    tables = read_ranks(directory)
    if split not in tables:
        raise DataError(f"{directory} has no ranks of {split}; it has {', '.join(tables)}")
    return tables[split]


def _cases(table: RankTable) -> list[Case]:
    return list(zip(table.users, table.history_lengths.tolist(), strict=True))


def _common_cases(tables: Sequence[RankTable]) -> list[Case]:
    common = set(_cases(tables[0])).intersection(*map(_cases, tables[1:]))
    if not common:
        raise DataError("the runs have no evaluated user in common; compare runs of one data set and one split")
    return sorted(common)


def _pooled(
    tables: Sequence[RankTable], method: str, cases: Sequence[Case], names: Sequence[str]
) -> dict[str, FloatArray]:
    """Metric -> (C,) mean over runs of each case's value."""
    places = [_places(table, cases) for table in tables]
    return {
        name: np.mean(
            [metric_values(table.ranks[method], name)[own] for table, own in zip(tables, places, strict=True)], axis=0
        )
        for name in names
    }


def _places(table: RankTable, cases: Sequence[Case]) -> IntArray:
    place = {case: row for row, case in enumerate(_cases(table))}
    return np.array([place[case] for case in cases], dtype=np.int64)


def _headline(table: RankTable, cases: Sequence[Case]) -> dict[str, float]:
    own = _places(table, cases)
    return {
        name: round(float(metric_values(table.ranks[MODEL], name)[own].mean()), 6) for name in headline_names(CUTOFFS)
    }


def _intervals(pool: _Pool, method: str, less: str | None) -> dict[str, dict[str, float]]:
    """Of a method, or of what it has more than another."""
    return {
        name: rounded(
            bootstrap(
                values if less is None else values - pool.values[less][name],
                seed=SEED,
                users=pool.users,
                resamples=RESAMPLES,
            )
        )
        for name, values in pool.values[method].items()
    }


def _cell(interval: Mapping[str, float], shape: str) -> str:
    return f"{interval['value']:{shape}} [{interval['low']:{shape}}, {interval['high']:{shape}}]"
