"""The two baselines that every result table prints: popularity, and a Markov chain of adjacent items.

Both rank the whole catalog without the items that the user has seen. They know item indices and counts; no model, no
file, no semantic ID.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from training.metrics import UNRANKED, FloatArray, IntArray, Ranks
from training.sequences import EvaluationCase

ItemArray = npt.NDArray[np.integer]

# The newest item votes with full weight, each older one with half of the weight of the one after it.
VOTERS = 5
DECAY = 0.5


def popularity_ranks(training: Sequence[ItemArray], cases: Sequence[EvaluationCase], num_items: int) -> Ranks:
    """Ranks items by how often they occur in the training sequences.

    Args:
        training: Item indices of each user, oldest first.
        cases: Users to evaluate.
        num_items: Items in the catalog.

    Returns:
        One rank a case, equal counts tied.
    """
    counts = np.bincount(_joined(training), minlength=num_items).astype(np.float64)
    return _ranks(cases, lambda history: counts.copy())


def markov_ranks(training: Sequence[ItemArray], cases: Sequence[EvaluationCase], num_items: int) -> Ranks:
    """Ranks items by the votes of the user's last five: each votes for its successors, weight ``0.5 ** age``.

    A successor's vote is how often it directly followed in the training sequences. Items without a vote are tied
    behind all others. Every score is a whole number of sixteenths, exact in float64, so ties are exact too.

    Args:
        training: Item indices of each user, oldest first; pairs never cross users.
        cases: Users to evaluate.
        num_items: Items in the catalog.

    Returns:
        One rank a case, equal votes tied.
    """
    successors, counts, start = _transitions(training, num_items)

    def votes(history: ItemArray) -> FloatArray:
        scores = np.zeros(num_items, dtype=np.float64)
        for age, item in enumerate(history[::-1][:VOTERS]):
            followed = slice(start[item], start[item + 1])
            scores[successors[followed]] += DECAY**age * counts[followed]
        return scores

    return _ranks(cases, votes)


def _transitions(sequences: Sequence[ItemArray], num_items: int) -> tuple[IntArray, IntArray, IntArray]:
    """Successors and their counts, and where each item's begin: compressed rows, (P,), (P,) and (num_items + 1,)."""
    before, after = _joined([items[:-1] for items in sequences]), _joined([items[1:] for items in sequences])
    pairs, counts = np.unique(before * num_items + after, return_counts=True)
    start = np.searchsorted(pairs, np.arange(num_items + 1) * num_items)
    return pairs % num_items, counts.astype(np.int64), start.astype(np.int64)


def _joined(sequences: Sequence[ItemArray]) -> IntArray:
    return np.concatenate([np.empty(0, dtype=np.int64), *sequences]).astype(np.int64)


def _ranks(cases: Sequence[EvaluationCase], score: Callable[[ItemArray], FloatArray]) -> Ranks:
    """Ranks each target among the items that its history lacks; `score` returns an array that may be written to."""
    better = np.full(len(cases), UNRANKED, dtype=np.int64)
    tied = np.ones(len(cases), dtype=np.int64)
    for user, case in enumerate(cases):
        if case.target in case.history:
            continue  # never recommended again, so out of every list
        scores = score(case.history)
        scores[case.history] = -np.inf
        better[user] = np.count_nonzero(scores > scores[case.target])
        tied[user] = np.count_nonzero(scores == scores[case.target])
    return Ranks(better, tied)
