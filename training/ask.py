"""Asks a recommender the questions of an evaluation, through the code that answers online.

Knows requests and answers; no metric. An item is its row in the sequences; -1 is one that the data do not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genrec.answers import Answer
from genrec.errors import DataError
from genrec.recommender import Recommender
from genrec.requests import Request
from training.metrics import Ranks
from training.progress import Progress
from training.seen import check_unseen
from training.sequences import EvaluationCase, Sequences

ENOUGH_KNOWN = 0.5
"""A bundle that knows a smaller share of the data's items was made of other data, and would be measured on nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Cases and what was recommended.

    Attributes:
        cases: The questions.
        lists: Of each, the recommended item rows, best first.
        ranks: Where each target stands in its list.
    """

    cases: Sequence[EvaluationCase]
    lists: Sequence[npt.NDArray[np.int64]]
    ranks: Ranks


def ask(
    recommender: Recommender,
    sequences: Sequences,
    cases: Sequence[EvaluationCase],
    k: int,
    batch_size: int,
    progress: Progress,
    label: str,
) -> Asked:
    """Ask for `k` unseen items after every case's history.

    Raises:
        DataError: the bundle knows too few of the data's items.
        InputError: the bundle was trained on what is held out here.
        RequestError: k is more than the bundle gives.
    """
    check_catalog(recommender, sequences)
    check_unseen(recommender.bundle.manifest, sequences)
    row_of_id = {item_id: row for row, item_id in enumerate(sequences.item_ids)}
    lists: list[npt.NDArray[np.int64]] = []
    with progress.task(f"evaluate {label}", len(cases)) as advance:
        for at in range(0, len(cases), batch_size):
            batch = cases[at : at + batch_size]
            for answer in recommender.recommend([request(sequences, case, k) for case in batch]):
                lists.append(np.array([row_of_id.get(item.item_id, -1) for item in answer.items], dtype=np.int64))
            advance(len(batch))
    return Asked(cases, lists, Ranks.from_lists(lists, [case.target for case in cases]))


def request(sequences: Sequences, case: EvaluationCase, k: int) -> Request:
    """The question of a case as it would come online."""
    return Request([sequences.item_ids[row] for row in case.history], k=k, exclude_history=True)


def answer_one(recommender: Recommender, sequences: Sequences, case: EvaluationCase, k: int) -> Answer:
    """What is recommended after one case's history."""
    (answer,) = recommender.recommend([request(sequences, case, k)])
    return answer


def check_catalog(recommender: Recommender, sequences: Sequences) -> int:
    """How many of the data's items the bundle does not know.

    Raises:
        DataError: they are too many.
    """
    catalog, num_items = recommender.bundle.catalog, len(sequences.item_ids)
    known = sum(catalog.row(item_id) is not None for item_id in sequences.item_ids)
    if known < ENOUGH_KNOWN * num_items:
        raise DataError(
            f"the bundle knows {known:,} of the {num_items:,} items of the prepared data; evaluate it on the data that "
            "its catalog was made of."
        )
    return num_items - known
