"""Stage `churn`: what a user notices when a retrained bundle takes the place of the one it went on from.

Both answer the same test users. Only runs that go on from a bundle have this stage. Knows two recommenders and cases.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from genrec.bundle import load_draft
from genrec.errors import InputError
from genrec.recommender import Recommender
from genrec.semantic_id import Catalog
from training.ask import Asked, ask
from training.base import open_base
from training.cases import evaluation_cases
from training.published import RETIRED
from training.rank_table import MODEL, RankTable
from training.results import differences, split_results
from training.sequences import load_sequences
from training.stage import Stage, StageContext
from training.stage_report import write_report

CHURN = "churn.json"
SHOWN = 10
"""Places of a list that a user sees."""

Lists = Sequence[npt.NDArray[np.int64]]


def run(context: StageContext) -> None:
    """`assemble` and the base bundle -> ``churn.json``, ``report.json`` and ``report.md``.

    Raises:
        InputError: the recipe names no base bundle.
    """
    recipe, inputs = context.recipe, context.inputs
    base = open_base(recipe)
    if base is None:
        raise InputError("the stage churn compares with a base bundle, and the recipe names none.")
    old = Recommender.load(base.path, device="auto", dtype="float32")
    new = Recommender.of(load_draft(inputs["assemble"] / "draft", device="auto", dtype="float32"))
    sequences = load_sequences(inputs["prepare"])
    cases = evaluation_cases(sequences, "test", recipe.evaluate)
    # As many as `evaluate` asks for: a search for more is wider, and its first places may be others.
    k = min(max(recipe.evaluate.cutoffs), *(one.bundle.manifest.generation.max_k for one in (old, new)))
    asked: dict[str, Asked] = {
        name: ask(one, sequences, cases, k, recipe.evaluate.batch_size, context.progress, name)
        for name, one in (("base", old), (MODEL, new))
    }
    table = RankTable.of(sequences, cases, {name: answers.ranks for name, answers in asked.items()})
    cutoffs = [cutoff for cutoff in recipe.evaluate.cutoffs if cutoff <= k] or [k]
    measured, others = split_results(table, recipe.evaluate, cutoffs)
    facts: dict[str, Any] = {
        "base": base.origin,
        "items": items_changed(base.catalog, new.bundle.catalog),
        "reserved_ids": _reserved(inputs["quantize"]),
        "tokens_added": sum(new.bundle.manifest.codebook_sizes) - sum(base.manifest.codebook_sizes),
        "lists": {
            "users": len(set(table.users)),
            **lists_changed(asked["base"].lists, asked[MODEL].lists),
        },
        "metrics": {"base": others["base"], "new": measured},
        "difference": differences(table, recipe.evaluate, cutoffs)["base"],
    }
    (context.output / CHURN).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    notes = describe(facts)
    for note in notes:
        context.progress.say(note)
    write_report(context.output, "Churn", facts, notes)


def items_changed(old: Catalog, new: Catalog) -> dict[str, int]:
    """How many items stayed, came and left, and how many of those that stayed have their semantic ID still."""
    rows = [(row, before) for row, item in enumerate(new.item_ids.to_pylist()) if (before := old.row(item)) is not None]
    pairs = np.array(rows, dtype=np.int64).reshape(-1, 2)
    same = 0
    if old.num_levels == new.num_levels:
        same = int((new.codes[pairs[:, 0]] == old.codes[pairs[:, 1]]).all(axis=1).sum())
    return {"kept": len(pairs), "added": len(new) - len(pairs), "removed": len(old) - len(pairs), "ids_kept": same}


def lists_changed(old: Lists, new: Lists) -> dict[str, float]:
    """How much of what a user sees is another than before, in the mean; -1 is an item that is not in the data any more.

    Args:
        old: C lists of item rows, best first.
        new: C lists, of the same cases.
    """
    pairs = [(before[:SHOWN].tolist(), after[:SHOWN].tolist()) for before, after in zip(old, new, strict=True)]
    fresh = [len(set(after) - (set(before) - {-1})) for before, after in pairs]
    first = [before[:1] != after[:1] for before, after in pairs]
    return {
        "places": SHOWN,
        "mean_items_changed": round(float(np.mean(fresh)), 4),
        "share_with_a_change": round(float(np.mean(np.array(fresh) > 0)), 4),
        "share_with_another_first": round(float(np.mean(first)), 4),
    }


def describe(facts: Mapping[str, Any]) -> list[str]:
    """The same as sentences."""
    items, lists, base = facts["items"], facts["lists"], facts["base"]
    metrics = [
        f"{name} {facts['metrics']['new'][name]['value']:.4f}, before {facts['metrics']['base'][name]['value']:.4f} "
        f"(difference {lead['value']:+.4f} [{lead['low']:+.4f}, {lead['high']:+.4f}])"
        for name, lead in facts["difference"].items()
    ]
    return [
        f"Against {base['name']} {base['version']}: {items['kept']:,} items kept, {items['added']:,} added, "
        f"{items['removed']:,} removed; {items['ids_kept']:,} of those kept have the semantic ID they had; "
        f"{facts['reserved_ids']:,} IDs of former items are reserved; {facts['tokens_added']:,} tokens added.",
        f"Of the first {lists['places']} items of {lists['users']:,} test users, {lists['mean_items_changed']:.2f} are "
        f"others than before in the mean; {lists['share_with_a_change']:.0%} of the users see a change, "
        f"{lists['share_with_another_first']:.0%} another first item.",
        f"On these users: {'; '.join(metrics)}.",
    ]


def _reserved(quantize: Path) -> int:
    retired = quantize / Path(RETIRED).name
    return int(pq.read_metadata(retired).num_rows) if retired.is_file() else 0


STAGE = Stage(
    name="churn",
    needs=("prepare", "quantize", "assemble"),
    section=lambda recipe: recipe.evaluate,
    run=run,
    reads_base=True,
)
