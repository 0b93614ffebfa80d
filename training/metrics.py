"""Ranking metrics with one relevant item a case: Recall, NDCG, MRR, bootstrap intervals over users, exposure of items.

Works on ranks and lists of item indices. Knows neither models nor how a list was made, nor what a baseline is.
A case is one question about one user; with leave-one-out a user has one, otherwise perhaps several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError
from training.recipe_model import CUTOFFS

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# Beyond any cut-off, and far enough from the type's end that adding a tie count cannot overflow.
UNRANKED = 2**60

_COUNTS_AT_ONCE = 2**22
"""Bounds the memory of a bootstrap: so many draws are held at once, 32 MiB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over cases and its bootstrap interval.

    Attributes:
        value: Mean over cases.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where each case's target stands, ties left open.

    The target's rank is equally likely to be any of ``better + 1 … better + tied``; the metrics are expectations
    over that, so a method of few distinct scores gains nothing from the order in which ties happen to be listed.

    Attributes:
        better: (N,) int64, items that score above the target; ``UNRANKED`` where it is not in the list at all.
        tied: (N,) int64, items that score as the target does, the target included; at least 1.
    """

    better: IntArray
    tied: IntArray

    def __post_init__(self) -> None:
        if self.better.shape != self.tied.shape or self.better.ndim != 1:
            raise DataError(
                f"ranks need two vectors of one length, not the shapes {self.better.shape} and {self.tied.shape}; "
                "give one pair of counts a case"
            )
        if (self.better < 0).any() or (self.tied < 1).any():
            raise DataError("a rank has better < 0 or tied < 1; count the target itself among its ties")

    @classmethod
    def from_lists(cls, recommended: Sequence[npt.ArrayLike], targets: npt.ArrayLike) -> Ranks:
        """Finds each target in its case's list, best item first.

        Args:
            recommended: N lists of distinct item indices; lengths may differ.
            targets: (N,) the item index that came next.

        Returns:
            Ranks without ties; a target that its list lacks is ``UNRANKED``.

        Raises:
            DataError: There are not as many lists as targets.
        """
        wanted = np.asarray(targets, dtype=np.int64)
        if len(recommended) != len(wanted):
            raise DataError(f"{len(recommended)} lists for {len(wanted)} targets; give one list a target")
        better = np.full(len(wanted), UNRANKED, dtype=np.int64)
        for user, (items, target) in enumerate(zip(recommended, wanted, strict=True)):
            found = np.flatnonzero(np.asarray(items) == target)
            if found.size:
                better[user] = found[0]
        return cls(better, np.ones_like(better))


def recall(ranks: Ranks, k: int) -> FloatArray:
    """Recall@k of each case: the probability that the target is among the first k.

    Args:
        ranks: N cases.
        k: Length of the list, at least 1.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        DataError: k is below 1.
    """
    _check_cutoff(k)
    return np.asarray(np.clip(k - ranks.better, 0, ranks.tied) / ranks.tied, dtype=np.float64)


def ndcg(ranks: Ranks, k: int) -> FloatArray:
    """NDCG@k of each case: the expectation of ``1 / log2(1 + rank)``, 0 beyond k (the ideal list gives 1).

    Args:
        ranks: N cases.
        k: Length of the list, at least 1.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        DataError: k is below 1.
    """
    _check_cutoff(k)
    return _expected_gain(ranks, 1 / np.log2(np.arange(2, k + 2)))


def mrr(ranks: Ranks, k: int) -> FloatArray:
    """Reciprocal rank of each case: the expectation of ``1 / rank``, 0 beyond k.

    Args:
        ranks: N cases.
        k: Length of the list, at least 1.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        DataError: k is below 1.
    """
    _check_cutoff(k)
    return _expected_gain(ranks, 1 / np.arange(1, k + 1))


def bootstrap(
    values: FloatArray, *, seed: int, users: IntArray | None = None, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Mean over cases with its percentile bootstrap interval, users being what is drawn.

    A resample's mean depends only on how often each distinct user was drawn, and those counts are multinomial: drawing
    them is the same bootstrap, for 11 distinct values of NDCG@10 instead of for all users. Of two methods on the same
    cases, the differences of their values give the paired bootstrap.

    Args:
        values: (N,) one number a case.
        seed: Of the generator; the same seed gives the same interval.
        users: (N,) whose case each is; not given, everyone has one.
        resamples: Bootstrap samples.
        level: Share of the resampled means that the interval holds.

    Returns:
        The mean and its interval.

    Raises:
        DataError: There are no cases.
    """
    if not values.size:
        raise DataError("no user to average over; the evaluated split is empty, so give it users with enough items")
    user = np.arange(values.size) if users is None else np.unique(users, return_inverse=True)[1]
    own = np.stack([np.bincount(user, weights=values), np.bincount(user)], 1)  # (users, 2): sum of values, and cases
    # rounded, for sums of equal values in another order are one value
    distinct, counts = np.unique(own.round(12), axis=0, return_counts=True)
    rng, size = np.random.default_rng(seed), max(1, _COUNTS_AT_ONCE // len(counts))
    totals = np.concatenate(
        [
            rng.multinomial(len(own), counts / len(own), size=min(size, resamples - drawn)) @ distinct
            for drawn in range(0, resamples, size)
        ]
    )  # (resamples, 2)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [(1 - level) / 2, (1 + level) / 2])
    total, number = counts @ distinct
    return Interval(float(total / number), float(low), float(high))


def ranking_metrics(
    ranks: Ranks,
    *,
    seed: int,
    cutoffs: Sequence[int] = CUTOFFS,
    users: IntArray | None = None,
    resamples: int = 2000,
) -> dict[str, Interval]:
    """Every metric at every cut-off, as ``{"recall@5": …, "ndcg@5": …, "mrr@5": …, "recall@10": …}``.

    Args:
        ranks: N cases.
        seed: Of the bootstrap.
        cutoffs: Lengths of list.
        users: (N,) whose case each is, as for `bootstrap`.
        resamples: Bootstrap samples.

    Returns:
        One interval a metric, in the order of the cut-offs.

    Raises:
        DataError: There are no cases, or a cut-off is below 1.
    """
    return {
        f"{name}@{k}": bootstrap(metric(ranks, k), seed=seed, users=users, resamples=resamples)
        for k in cutoffs
        for name, metric in METRICS.items()
    }


def exposure(recommended: Sequence[npt.ArrayLike], num_items: int) -> IntArray:
    """In how many of the lists each item is; how many are in any is the coverage.

    Args:
        recommended: Lists of item indices; those below 0 are of no item here.
        num_items: N.

    Returns:
        (N,) int64.
    """
    items = np.concatenate([np.empty(0, dtype=np.int64), *(np.asarray(one, dtype=np.int64) for one in recommended)])
    return np.bincount(items[items >= 0], minlength=num_items).astype(np.int64)


def _expected_gain(ranks: Ranks, gains: FloatArray) -> FloatArray:
    """(N,) the mean gain over the ranks that a target may have; `gains` are those of ranks 1 … k, 0 beyond."""
    k = len(gains)
    # gain_up_to[j] is the summed gain of ranks 1 … j, so a run of tied ranks is one difference.
    gain_up_to = np.concatenate([[0.0], np.cumsum(gains)])
    first, last = np.minimum(ranks.better, k), np.minimum(ranks.better + ranks.tied, k)
    return np.asarray((gain_up_to[last] - gain_up_to[first]) / ranks.tied, dtype=np.float64)


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise DataError(f"the cut-off k={k} is below 1; a list has at least one item")


METRICS: Final[Mapping[str, Callable[[Ranks, int], FloatArray]]] = {"recall": recall, "ndcg": ndcg, "mrr": mrr}
"""Every metric by name, as it stands before the ``@`` of a cut-off."""
