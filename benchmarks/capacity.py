"""Does the queue explain the service: is the latency at each load what batch times alone predict?

`python -m benchmarks.capacity` times batches of several sizes in the engine, loaded as a service loads it. Then it
starts a real `genrec serve` and sends requests at random times, at loads up to the most that it answers. Beside each
percentile stands what `benchmarks.bulk_queue` predicts. Nothing is fitted to the curve: the model knows the batch times
and one number more, what a lone client's answer takes beside the engine. That work can lie in two places, so there are
two predictions:

- *apart*: HTTP has a core of its own. It adds to every latency and takes nothing from the engine.
- *shared*: HTTP and engine take turns. Every request of a batch keeps the engine waiting for that long.

Linux only, as `benchmarks.http` is.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from json import dumps
from pathlib import Path

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks.availability import Server, serving
from benchmarks.bulk_queue import Prediction, ServiceTime, predict
from benchmarks.http import Seen, at_bounds, histories, lone_answers, send
from benchmarks.report import publish, table
from benchmarks.sender import Job
from benchmarks.synthetic import Shape, write_bundle
from genrec.recommender import Recommender
from genrec.requests import Request
from service.loading import load_to_serve
from service.settings import read_settings

SIZES = (1, 2, 4, 8, 16, 32, 64)
LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the open loop, as parts of the most that the closed one reached."""
CLIENTS = 32
PERCENTS = (50, 99)
RUNS = 20
"""Of the model at each load."""
CLOSE = 0.25
"""A prediction no further than this from what was measured holds."""

BatchTimes = Mapping[int, Sequence[float]]
"""Size of a batch -> seconds of each that was timed."""


@dataclass(frozen=True)
class Curve:
    """What the service did.

    Attributes:
        alone: of one client of a closed loop.
        crowd: of `CLIENTS` of them, who reach the most.
        opened: part of that most -> an open loop at this rate.
    """

    alone: Seen
    crowd: Seen
    opened: Mapping[float, Seen]

    @property
    def wrong(self) -> int:
        """Answers that are not a lone client's."""
        return sum(seen.wrong for seen in (self.alone, self.crowd, *self.opened.values()))


@dataclass(frozen=True)
class Load:
    """One load of the open loop.

    Attributes:
        part: of the most that the closed loop reached.
        seen: what was measured.
        predicted: where HTTP is -> each of `PERCENTS`, in seconds.
    """

    part: float
    seen: Seen
    predicted: Mapping[str, Sequence[Prediction]]

    def row(self) -> dict[str, object]:
        """For the table."""
        cells: dict[str, object] = {"load": self.part, "sent/s": self.seen.offered, "answers/s": self.seen.rate}
        for place, percent in enumerate(PERCENTS):
            cells[f"p{percent} ms"] = self.seen.percentile_ms(percent)
            for where, predictions in self.predicted.items():
                cells[f"{where} p{percent}"] = predictions[place].middle * 1e3
        for where, predictions in self.predicted.items():
            cells |= {f"{where} low": predictions[-1].low * 1e3, f"{where} high": predictions[-1].high * 1e3}
        return cells | {"wrong": self.seen.wrong}

    def holds(self, where: str, percent: int) -> bool:
        """Whether a prediction is close to what was measured."""
        predicted_ms = self.predicted[where][PERCENTS.index(percent)].middle * 1e3
        return abs(predicted_ms / self.seen.percentile_ms(percent) - 1) <= CLOSE


def time_batches(
    recommender: Recommender, requests: Sequence[Request], sizes: Sequence[int], seconds: float
) -> BatchTimes:
    """Time batches of random requests; the sizes in turns, so that a busy moment of the machine falls on all."""
    dice = random.Random(0)
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for size in sizes:
            batch = dice.choices(requests, k=size)
            begin = time.perf_counter()
            recommender.recommend(batch)
            taken[size].append(time.perf_counter() - begin)
    return taken


def batch_rows(taken: BatchTimes) -> list[dict[str, object]]:
    """For the table: what was measured, and what the line through it says."""
    line = ServiceTime.fitted(taken)
    return [
        {
            "batch": size,
            "batches": len(times),
            "mean ms": float(np.mean(times)) * 1e3,
            "p99 ms": float(np.percentile(times, 99)) * 1e3,
            "a + c·b, ms": line.mean_s(size) * 1e3,
            "requests/s": size / float(np.mean(times)),
        }
        for size, times in taken.items()
    ]


def measure(server: Server, bodies: list[str], given: argparse.Namespace) -> Curve:
    """All runs of the sender."""
    reference = lone_answers(server, bodies)
    send(server, Job(server.url, bodies, given.seconds / 2, clients=8), "warm-up")
    alone = send(server, Job(server.url, bodies, given.seconds / 2, clients=1), "closed, 1", reference)
    crowd = send(server, Job(server.url, bodies, given.seconds, clients=CLIENTS), f"closed, {CLIENTS}", reference)
    jobs = {part: Job(server.url, bodies, given.seconds, rate=part * crowd.rate, seed=1) for part in given.loads}
    return Curve(alone, crowd, {part: send(server, job, f"open, {part:.0%}", reference) for part, job in jobs.items()})


def beside_s(alone: Seen) -> float:
    """What a lone client's answer takes beside the engine, at the median: HTTP, JSON, validation, socket, sender."""
    return float(np.median(np.subtract(alone.good, alone.stage_ms("encode", "decode")))) / 1e3


def predictions(service: ServiceTime, http_s: float, most: int, **run: float) -> dict[str, list[Prediction]]:
    """What the model says of runs of so many `seconds` at a `rate`, wherever HTTP is."""
    apart = predict(service, PERCENTS, most=most, runs=RUNS, **run)
    shared = predict(service.with_work(http_s), PERCENTS, most=most, runs=RUNS, **run)
    return {"apart": [one.later(http_s) for one in apart], "shared": shared}


def held(loads: Sequence[Load]) -> list[dict[str, object]]:
    """For each prediction, the highest load up to which it holds at every load; None if it does at none."""
    found: list[dict[str, object]] = []
    for where in loads[0].predicted:
        for percent in PERCENTS:
            misses = [load.part for load in loads if not load.holds(where, percent)]
            good = [load.part for load in loads if load.part < min(misses, default=float("inf"))]
            found.append({"HTTP": where, "percentile": percent, "holds up to load": max(good, default=None)})
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/demo"), help="a synthetic one where it is not")
    parser.add_argument("--interactions", type=Path, default=Path("runs/demo/prepare/interactions.parquet"))
    parser.add_argument("--users", type=int, default=200, help="whose histories are asked with")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="of batches, two or more")
    parser.add_argument("--engine-seconds", type=float, default=60.0, help="for all sizes together")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS), help="parts of the most")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="directory of the JSON document")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    given.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=given.output, prefix=".capacity-"))
    try:
        bundle = given.bundle if given.bundle.exists() else write_bundle(work / "bundle", Shape(100_000))
        settings = read_settings({"bundle": bundle})
        recommender = load_to_serve(bundle, settings)
        item_ids = recommender.bundle.catalog.item_ids.slice(0, 100).to_pylist()
        sequences = histories(given.interactions, item_ids, given.users)
        requests = [Request(history, k=given.k) for history in sequences]
        most = max(1, settings.max_batch_rows // recommender.beam_rows(requests[0]))
        taken = time_batches(recommender, requests, given.sizes, given.engine_seconds)
        del recommender
        bodies = [dumps({"history": history, "k": given.k, "fields": []}) for history in sequences]
        with serving(bundle, work, "server") as server:
            curve = measure(server, bodies, given)
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    service, http_s = ServiceTime.fitted(taken), beside_s(curve.alone)
    loads = [
        Load(part, seen, predictions(service, http_s, most, rate=part * curve.crowd.rate, seconds=given.seconds))
        for part, seen in curve.opened.items()
    ]
    numbers: list[dict[str, object]] = [
        {"": "a, ms a batch", "value": service.per_batch_s * 1e3},
        {"": "c, ms a request", "value": service.per_request_s * 1e3},
        {"": "beside the engine, ms a request", "value": http_s * 1e3},
        {"": "requests in a batch at most", "value": most},
        {"": "threads of the model", "value": settings.threads},
        {"": "most/s, HTTP apart", "value": service.most_per_s(most)},
        {"": "most/s, HTTP shared", "value": service.with_work(http_s).most_per_s(most)},
        {"": f"most/s, measured with {CLIENTS} clients", "value": curve.crowd.rate},
    ]
    more = {
        "batches": batch_rows(taken),
        "numbers": numbers,
        "at_bounds": at_bounds(list(curve.opened.values())),
        "held": held(loads),
    }
    said = {**vars(given), **{name: str(vars(given)[name]) for name in ("bundle", "interactions", "output")}}
    publish("capacity", [load.row() for load in loads], given.output, **more, settings=said)
    print("\n" + "\n\n".join(map(table, more.values())))
    if curve.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
