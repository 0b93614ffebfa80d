"""What does a service answer over HTTP, how quickly under which load, and what of that is HTTP?

`python -m benchmarks.http` starts a real `genrec serve` on the demo bundle, or on a synthetic one where there is none,
and asks it from a process of its own: in a closed loop (a client sends its next request when it has its answer), then
in an open one (requests come when they come, whatever the service does; times count from when each was to be sent).
Every answer is held against that of a lone client. It exits with 1 if one differs. Linux only.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
from transformers.utils import logging as transformers_logging

from benchmarks.availability import Server, serving
from benchmarks.report import publish, table
from benchmarks.sender import Job, Result
from benchmarks.synthetic import Shape, write_bundle

CLIENTS = (1, 8, 32, 64)
LOADS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Of an open loop, as parts of the most that the closed loops reached."""
BOUNDS_MS = (50, 100, 200)
TOLERANCE = 1e-4
STAGES = ("queue", "encode", "decode")
Reference = Mapping[int, Mapping[str, float | None]]


@dataclass(frozen=True)
class Seen:
    """A run of the sender and what the service spent on it.

    Attributes:
        name: how the table calls it.
        offered: requests a second of an open loop; None of a closed one.
        server_cpu_s: of all threads of the service, seconds.
        wrong: answers that are not the lone client's.
    """

    name: str
    offered: float | None
    result: Result
    server_cpu_s: float
    wrong: int

    @property
    def good(self) -> list[float]:
        """Milliseconds of the requests that were answered."""
        pairs = zip(self.result.milliseconds, self.result.statuses, strict=True)
        return [taken for taken, status in pairs if status == 200]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.good) / self.result.wall_s

    def percentile_ms(self, percent: float) -> float:
        """Of the requests that were answered."""
        return float(np.percentile(self.good, percent)) if self.good else float("nan")

    def stage_ms(self, *stages: str) -> list[float]:
        """What each answer says that these stages took together."""
        answers = [answer for answer in self.result.answers if answer]
        return [sum(answer["timing_ms"][stage] for stage in stages) for answer in answers]

    def row(self) -> dict[str, object]:
        """For the table."""
        count = max(1, len(self.result.statuses))
        refused = sum(status == 429 for status in self.result.statuses)
        return {
            "": self.name,
            "offered/s": self.offered,
            "answers/s": self.rate,
            "p50 ms": self.percentile_ms(50),
            "p95 ms": self.percentile_ms(95),
            "p99 ms": self.percentile_ms(99),
            "429": refused,
            "failed": len(self.result.statuses) - len(self.good) - refused,
            "wrong": self.wrong,
            **{f"{stage} p50 ms": _median(self.stage_ms(stage)) for stage in STAGES},
            "beside p50 ms": _median(np.subtract(self.good, self.stage_ms(*STAGES)).tolist()),
            "server cpu ms": self.server_cpu_s / count * 1e3,
            "sender cpu ms": self.result.cpu_s / count * 1e3,
            "sent late p99 ms": float(np.percentile(self.result.lag_ms, 99)) if self.result.lag_ms else None,
        }


def histories(interactions: Path, item_ids: Sequence[str], count: int) -> list[list[str]]:
    """Those of real users, without the item that tests are made of; random ones where there are none."""
    dice = random.Random(0)
    if not interactions.exists():
        return [dice.sample(item_ids, min(len(item_ids), dice.randint(5, 20))) for _ in range(count)]
    users: dict[str, list[str]] = {}
    rows = pq.read_table(interactions, columns=["user_id", "item_id", "split"]).to_pydict()  # in order of user and time
    for user, item, split in zip(rows["user_id"], rows["item_id"], rows["split"], strict=True):
        if split != "test":
            users.setdefault(user, []).append(item)
    return [users[user][-50:] for user in dice.sample(sorted(users), min(count, len(users)))]


def send(server: Server, job: Job, name: str, reference: Reference | None = None) -> Seen:
    """Run the sender."""
    before = _cpu_s(server.process.pid)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sender"],
        input=json.dumps(asdict(job)), capture_output=True, text=True, check=True, env={**os.environ},  # noqa: TID251
    )  # fmt: skip
    result = Result(**json.loads(done.stdout))
    wrong = 0 if reference is None else sum(map(differs, [reference] * len(result.asked), result.asked, result.answers))
    return Seen(name, job.rate or None, result, _cpu_s(server.process.pid) - before, wrong)


def lone_answers(server: Server, bodies: Sequence[str]) -> Reference:
    """What a client that is alone is answered: body -> item -> score."""
    with server.main as client:
        replies = [client.post("/v1/recommend", content=body, headers=_JSON).raise_for_status() for body in bodies]
    return {
        which: {item["item_id"]: item["score"] for item in reply.json()["items"]} for which, reply in enumerate(replies)
    }


def measure(server: Server, bodies: list[str], given: argparse.Namespace) -> list[Seen]:
    """The closed loops, then the open ones up to what those reached."""
    reference = lone_answers(server, bodies)
    send(server, Job(server.url, bodies, given.seconds / 2, clients=8), "warm-up")
    seen = [
        send(server, Job(server.url, bodies, given.seconds, clients=clients), f"closed, {clients}", reference)
        for clients in given.clients
    ]
    most = max(one.rate for one in seen)
    for load in given.loads:
        job = Job(server.url, bodies, given.seconds, rate=load * most, seed=1)
        seen.append(send(server, job, f"open, {load:.0%}", reference))
    seen.append(send(server, Job(server.url, bodies, min(given.seconds, 5), kind="httpx"), "httpx, 1", reference))
    return seen


def at_bounds(seen: Sequence[Seen]) -> list[dict[str, object]]:
    """The most answers a second of an open loop with all requests answered and a p99 within each bound."""
    opened = [one for one in seen if one.offered is not None and len(one.good) == len(one.result.statuses)]
    return [
        {
            "p99 within, ms": bound,
            "answers/s": max((one.rate for one in opened if one.percentile_ms(99) <= bound), default=None),
        }
        for bound in BOUNDS_MS
    ]


def overhead(alone: Seen) -> list[dict[str, object]]:
    """What of a lone client's time is not the model's, at the median."""
    inside = np.subtract(alone.stage_ms("total"), alone.stage_ms("encode", "decode"))
    outside = np.subtract(alone.good, alone.stage_ms("total"))
    return [
        {"one client, p50 ms": "all of it", "": alone.percentile_ms(50)},
        {"one client, p50 ms": "encode and decode", "": _median(alone.stage_ms("encode", "decode"))},
        {"one client, p50 ms": "of it queue", "": _median(alone.stage_ms("queue"))},
        {"one client, p50 ms": "validation, queue, event loop", "": _median(inside.tolist())},
        {"one client, p50 ms": "writing JSON, HTTP, socket, sender", "": _median(outside.tolist())},
        {"one client, p50 ms": "all but encode and decode", "": _median((inside + outside).tolist())},
    ]


def draw(seen: Sequence[Seen], picture: Path) -> None:
    """Latency over load, of the open loops."""
    from matplotlib import pyplot, ticker  # heavy, and only for this

    opened = [one for one in seen if one.offered is not None and one.good]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for percent in (50, 95, 99):
        milliseconds = [one.percentile_ms(percent) for one in opened]
        axes.plot([one.offered or 0.0 for one in opened], milliseconds, "o-", label=f"p{percent}")
    axes.set(xlabel="requests/s offered, at random times", ylabel="ms from the intended time", yscale="log")
    axes.set_yticks([5, 10, 20, *BOUNDS_MS, 500, 1_000], minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(linewidth=0.3)
    axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)


def differs(reference: Reference, which: int, answer: Mapping[str, list[object]] | None) -> bool:
    """Whether an answer to body `which` is not the lone client's; none at all is not wrong."""
    if answer is None:
        return False
    expected = reference[which]
    scores = dict(zip(answer["items"], answer["scores"], strict=True))
    return scores.keys() != expected.keys() or not all(_close(scores[item], score) for item, score in expected.items())


def _close(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE
    return one is None and other is None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_JSON = {"content-type": "application/json"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/demo"), help="a synthetic one where it is not")
    parser.add_argument("--interactions", type=Path, default=Path("runs/demo/prepare/interactions.parquet"))
    parser.add_argument("--users", type=int, default=200, help="whose histories are asked with")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS), help="of the closed loops")
    parser.add_argument("--loads", type=float, nargs="*", default=list(LOADS), help="of the open loops, 1 is the most")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="directory of the JSON document")
    parser.add_argument("--picture", type=Path, help="of latency over load; http.png beside the document")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    given.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=given.output, prefix=".http-"))
    try:
        bundle = given.bundle if given.bundle.exists() else write_bundle(work / "bundle", Shape(100_000))
        with serving(bundle, work, "server") as server:
            with server.main as client:
                item_ids = [item["item_id"] for item in client.get("/v1/items?limit=100").json()["items"]]
            sequences = histories(given.interactions, item_ids, given.users)
            bodies = [json.dumps({"history": history, "k": given.k, "fields": []}) for history in sequences]
            seen = measure(server, bodies, given)
    except httpx.HTTPStatusError as error:
        raise SystemExit(f"the service refused a request of ours: {error.response.text}") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    bounds, parts = at_bounds(seen), overhead(next(one for one in seen if one.offered is None))
    settings = {
        **vars(given),
        **{name: str(vars(given)[name]) for name in ("bundle", "interactions", "output", "picture")},
    }
    publish("http", [one.row() for one in seen], given.output, at_bounds=bounds, overhead=parts, settings=settings)
    print(f"\n{table(bounds)}\n\n{table(parts)}")
    draw(seen, given.picture or given.output / "http.png")
    if any(one.wrong for one in seen):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
