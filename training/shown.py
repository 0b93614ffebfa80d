"""Recommendations that a reader can judge: some validation users, drawn and not chosen, with titles.

Knows a catalog's words. User ids are left out: a bundle travels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from genrec.recommender import Recommender
from genrec.semantic_id import Catalog
from training.ask import answer_one
from training.sequences import EvaluationCase, Sequences

HISTORY_SHOWN = 6
ITEMS_SHOWN = 10
_TITLES = ("title", "name")


def shown_examples(
    recommender: Recommender, sequences: Sequences, cases: Sequence[EvaluationCase], count: int, seed: int
) -> list[dict[str, Any]]:
    """For some cases: the end of the history, what was recommended, and what came next.

    Args:
        recommender: What is asked.
        sequences: The data that the cases are of.
        cases: Of which `count` are drawn.
        count: How many.
        seed: Of the draw.

    Returns:
        One table a case: ``history`` (titles, oldest first), ``older`` (how many items go before them), ``target`` (the
        title of what came next), ``items`` (``title`` and ``hit`` of each recommended item).
    """
    drawn = np.random.default_rng(seed).permutation(len(cases))[:count]
    k = min(ITEMS_SHOWN, recommender.bundle.manifest.generation.max_k)
    column = title_column(recommender.bundle.catalog)
    return [_shown(recommender, sequences, cases[place], k, column) for place in np.sort(drawn)]


def title_column(catalog: Catalog) -> str | None:
    """The column that names an item to a reader: a title, else the first text; None where there is none."""
    texts = [column for column, kind in catalog.columns.items() if kind == "string"]
    return next((column for column in texts if column.lower() in _TITLES), next(iter(texts), None))


def _shown(
    recommender: Recommender, sequences: Sequences, case: EvaluationCase, k: int, column: str | None
) -> dict[str, Any]:
    target = sequences.item_ids[case.target]
    answer = answer_one(recommender, sequences, case, k)

    def title(item_id: str) -> str:
        row = recommender.bundle.catalog.row(item_id)
        text = None if row is None or column is None else recommender.bundle.catalog.describe(row, [column])[column]
        return str(text or item_id)

    newest = [sequences.item_ids[row] for row in case.history[-HISTORY_SHOWN:]]
    return {
        "history": [title(item_id) for item_id in newest],
        "older": len(case.history) - len(newest),
        "target": title(target),
        "items": [{"title": title(item.item_id), "hit": item.item_id == target} for item in answer.items],
    }
