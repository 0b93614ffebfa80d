"""Ranking metrics with one relevant item a user: Recall, NDCG, bootstrap intervals, coverage.

Works on ranks and lists of item indices. Knows neither models nor how a list was made, nor what a baseline is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# Beyond any cut-off, and far enough from the type's end that adding a tie count cannot overflow.
UNRANKED = 2**60


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users and its bootstrap interval.

    Attributes:
        value: Mean over users.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where each user's target stands, ties left open.

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
                "give one pair of counts a user"
            )
        if (self.better < 0).any() or (self.tied < 1).any():
            raise DataError("a rank has better < 0 or tied < 1; count the target itself among its ties")

    @classmethod
    def from_lists(cls, recommended: Sequence[npt.ArrayLike], targets: npt.ArrayLike) -> Ranks:
        """Finds each target in its user's list, best item first.

        Args:
            recommended: N lists of distinct item indices; lengths may differ.
            targets: (N,) the item index that each user chose.

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


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the catalog the lists reach.

    Attributes:
        distinct_items: Different items over all lists.
        catalog_size: Items that could have been recommended.
    """

    distinct_items: int
    catalog_size: int

    @property
    def fraction(self) -> float:
        """Share of the catalog that is in at least one list."""
        return self.distinct_items / self.catalog_size


def recall(ranks: Ranks, k: int) -> FloatArray:
    """Recall@k of each user: the probability that the target is among the first k.

    Args:
        ranks: N users.
        k: Length of the list, at least 1.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        DataError: k is below 1.
    """
    _check_cutoff(k)
    return np.asarray(np.clip(k - ranks.better, 0, ranks.tied) / ranks.tied, dtype=np.float64)


def ndcg(ranks: Ranks, k: int) -> FloatArray:
    """NDCG@k of each user: the expectation of ``1 / log2(1 + rank)``, 0 beyond k (the ideal list gives 1).

    Args:
        ranks: N users.
        k: Length of the list, at least 1.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        DataError: k is below 1.
    """
    _check_cutoff(k)
    # gain_up_to[j] is the summed gain of ranks 1 … j, so a run of tied ranks is one difference.
    gain_up_to = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    first, last = np.minimum(ranks.better, k), np.minimum(ranks.better + ranks.tied, k)
    return np.asarray((gain_up_to[last] - gain_up_to[first]) / ranks.tied, dtype=np.float64)


def bootstrap(values: FloatArray, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Mean over users with its percentile bootstrap interval.

    A resample's mean depends only on how often each distinct value was drawn, and those counts are multinomial:
    drawing them is the same bootstrap, in memory ``resamples`` times the distinct values (11 for NDCG@10) instead of
    times the users.

    Args:
        values: (N,) one number a user.
        seed: Of the generator; the same seed gives the same interval.
        resamples: Bootstrap samples.
        level: Share of the resampled means that the interval holds.

    Returns:
        The mean and its interval.

    Raises:
        DataError: There are no users.
    """
    if not values.size:
        raise DataError("no user to average over; the evaluated split is empty, so give it users with enough items")
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=resamples)
    low, high = np.quantile(drawn @ distinct / values.size, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def ranking_metrics(
    ranks: Ranks, *, seed: int, cutoffs: Sequence[int] = (5, 10), resamples: int = 2000
) -> dict[str, Interval]:
    """Recall and NDCG at each cut-off, as ``{"recall@5": …, "ndcg@5": …, "recall@10": …}``.

    Args:
        ranks: N users.
        seed: Of the bootstrap.
        cutoffs: Lengths of list.
        resamples: Bootstrap samples.

    Returns:
        One interval a metric, in the order of the cut-offs.

    Raises:
        DataError: There are no users, or a cut-off is below 1.
    """
    return {
        f"{name}@{k}": bootstrap(metric(ranks, k), seed=seed, resamples=resamples)
        for k in cutoffs
        for name, metric in (("recall", recall), ("ndcg", ndcg))
    }


def coverage(recommended: Sequence[npt.ArrayLike], catalog_size: int) -> Coverage:
    """Counts the different items over all lists.

    Args:
        recommended: Lists of item indices.
        catalog_size: Items in the catalog.

    Returns:
        The count and the share.

    Raises:
        DataError: The catalog is empty.
    """
    if catalog_size < 1:
        raise DataError(f"a catalog of {catalog_size} items cannot be covered; give its size")
    indices = [np.asarray(items, dtype=np.int64) for items in recommended]
    return Coverage(int(np.unique(np.concatenate(indices)).size) if indices else 0, catalog_size)


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise DataError(f"the cut-off k={k} is below 1; a list has at least one item")
