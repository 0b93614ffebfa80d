"""How long requests wait for a server that takes all that wait at once: the queue of a service, as a model.

Requests come at random times (Poisson). One server is free or busy; when it becomes free it takes everyone who waits,
at most so many, and a batch of b takes S(b) = a + c·b seconds, times a factor drawn from those that were measured. This
is the bulk-service queue of Bailey (On queueing processes with bulk service, J. R. Stat. Soc. B 16, 1954), with a time
that grows with the batch as in Inoue (arXiv:1912.06322), who has it for dynamic batching of models.

Followed request by request instead of solved: so a run can be as short as the one it is held against, which begins
empty, and may be offered more than it can answer. Knows neither models nor HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ServiceTime:
    """What a batch takes.

    Attributes:
        per_batch_s: a, of a batch of any size.
        per_request_s: c, for each request in it.
        spread: what batches took, as multiples of a + c·b; all equally likely.
    """

    per_batch_s: float
    per_request_s: float
    spread: tuple[float, ...] = (1.0,)

    @classmethod
    def fitted(cls, measured: Mapping[int, Sequence[float]]) -> Self:
        """The line through the mean times of batches, with the least relative errors; `spread` is about it.

        Args:
            measured: size of a batch -> seconds that batches of this size took; two sizes or more.
        """
        sizes = np.array(list(measured), dtype=float)
        means = np.array([np.mean(taken) for taken in measured.values()])
        columns = np.stack([np.ones_like(sizes), sizes], axis=1) / means[:, None]
        (per_batch_s, per_request_s), *_ = np.linalg.lstsq(columns, np.ones_like(means), rcond=None)
        line = cls(float(per_batch_s), float(per_request_s))
        spread = [one / line.mean_s(size) for size, taken in measured.items() for one in taken]
        return cls(line.per_batch_s, line.per_request_s, tuple(spread))

    def mean_s(self, size: float) -> float:
        """a + c·b."""
        return self.per_batch_s + self.per_request_s * size

    def with_work(self, seconds: float) -> "ServiceTime":
        """The same with so much more to do for each request while no other is served."""
        return ServiceTime(self.per_batch_s, self.per_request_s + seconds, self.spread)

    def most_per_s(self, most: int) -> float:
        """What the server can answer a second, in batches of `most`."""
        return most / self.mean_s(most)


def latencies(service: ServiceTime, *, rate: float, seconds: float, most: int, seed: int) -> Seconds:
    """Seconds from coming to answer, of each request of one run that begins empty.

    Args:
        service: what a batch takes.
        rate: requests a second.
        seconds: how long they come; all that came are answered.
        most: requests in a batch.
        seed: of when they come and what their batches take.
    """
    rng = np.random.default_rng(seed)
    came = np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))
    spread = np.array(service.spread)
    factors = iter(spread[rng.integers(len(spread), size=len(came))].tolist())  # no run has more batches than requests
    answered = np.empty_like(came)
    first, free = 0, 0.0
    while first < len(came):
        start = max(free, float(came[first]))
        waiting = int(np.searchsorted(came, start, side="right"))
        last = min(waiting, first + most)
        free = start + service.mean_s(last - first) * next(factors)
        answered[first:last] = free
        first = last
    return answered - came


@dataclass(frozen=True)
class Prediction:
    """A percentile of several runs.

    Attributes:
        middle: the median of the runs.
        low, high: four of five runs lie between.
    """

    middle: float
    low: float
    high: float

    def later(self, seconds: float) -> "Prediction":
        """The same where every answer takes so much longer."""
        return Prediction(self.middle + seconds, self.low + seconds, self.high + seconds)


def predict(
    service: ServiceTime, percents: Sequence[float], *, rate: float, seconds: float, most: int, runs: int
) -> list[Prediction]:
    """Percentiles of the latency, in seconds, over `runs` runs of `latencies`."""
    seen = [latencies(service, rate=rate, seconds=seconds, most=most, seed=seed) for seed in range(runs)]
    found = np.array([np.percentile(one, percents) for one in seen if len(one)])
    low, middle, high = np.percentile(found, [10, 50, 90], axis=0).tolist()
    return [Prediction(*values) for values in zip(middle, low, high, strict=True)]
