"""What does Ray Serve cost on one machine: the same bundle behind uvicorn, behind HAProxy, and behind Ray's own proxy?

`python -m benchmarks.ray_serve` starts them one after another, each with one process of the model, and asks from a
process of its own: in closed loops, then in an open one at a rate that is the same for all. Every answer is held to
that of a lone client of uvicorn; it exits with 1 if one differs. Linux only; needs genrec[service,ray].
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import httpx
from transformers.utils import logging as transformers_logging

from benchmarks.http import Reference, Seen, differs, histories
from benchmarks.report import publish
from benchmarks.sender import Job, Result
from benchmarks.synthetic import Shape, write_bundle

CLIENTS = (1, 8, 32)
LOAD = 0.5
"""Of the open loop, as a part of the most that uvicorn's closed loops reached."""
PATIENCE_S = 180.0

_OWN_PROXY = """
import sys
from genrec.commands import main
from service import ray_rollout
ray_rollout.environment = lambda settings: {}
main(sys.argv[1:])
"""
"""`genrec` without the variables that it sets for Ray Serve: what one gets who does not know of them."""

STACKS = {
    "uvicorn": (["-m", "genrec"], []),
    "Ray Serve, HAProxy": (["-m", "genrec"], ["--ray", "local"]),
    "Ray Serve, its own proxy": (["-c", _OWN_PROXY], ["--ray", "local"]),
}


@contextmanager
def serving(stack: str, bundle: Path, log: Path) -> Iterator[str]:
    """The service behind one of `STACKS`; gives its address."""
    program, flags = STACKS[stack]
    command = [sys.executable, *program, "serve", "--bundle", str(bundle), "--port", "0", *flags]
    environment = {**os.environ, "GENREC_LOG_FORMAT": "json"}  # noqa: TID251  (a child's)
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    last = r'^\{.*"event": "ready".*"replicas"' if flags else r'^\{.*"event": "ready"'
    try:
        begin = time.perf_counter()
        while not re.search(last, said := log.read_text(), re.MULTILINE):
            if process.poll() is not None or time.perf_counter() - begin > PATIENCE_S:
                raise RuntimeError(f"{stack} is not ready:\n{said}")
            time.sleep(0.1)
        yield re.findall(r'"url": "(http://127\.0\.0\.1:\d+)"', said)[-1]
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def send(job: Job, name: str, reference: Reference) -> Seen:
    """Run the sender."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sender"],
        input=json.dumps(asdict(job)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = Result(**json.loads(done.stdout))
    wrong = sum(differs(reference, asked, answer) for asked, answer in zip(result.asked, result.answers, strict=True))
    return Seen(name, job.rate or None, result, float("nan"), wrong)


def row(stack: str, seen: Seen) -> dict[str, object]:
    """For the table."""
    return {
        "": f"{stack}; {seen.name}",
        "offered/s": seen.offered,
        "answers/s": seen.rate,
        "p50 ms": seen.percentile_ms(50),
        "p99 ms": seen.percentile_ms(99),
        "failed": len(seen.result.statuses) - len(seen.good),
        "wrong": seen.wrong,
    }


def lone_answers(url: str, bodies: Sequence[str]) -> Reference:
    """What a client that is alone is answered: body -> item -> score."""
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        replies = [client.post("/v1/recommend", content=body).raise_for_status().json() for body in bodies]
    return {which: {item["item_id"]: item["score"] for item in one["items"]} for which, one in enumerate(replies)}


def measure(bundle: Path, work: Path, given: argparse.Namespace) -> list[dict[str, object]]:
    """Each stack in turn; the first says what the answers are and what rate the open loops have."""
    rows: list[dict[str, object]] = []
    bodies: list[str] = []
    reference: Reference = {}
    rate = 0.0
    for stack in STACKS:
        with serving(stack, bundle, work / "log") as url:
            if not bodies:
                items = httpx.get(f"{url}/v1/items?limit=100").raise_for_status().json()["items"]
                sequences = histories(given.interactions, [item["item_id"] for item in items], given.users)
                bodies = [json.dumps({"history": history, "k": given.k, "fields": []}) for history in sequences]
                reference = lone_answers(url, bodies)
            send(Job(url, bodies, given.seconds / 2, clients=8), "warm-up", reference)
            closed = [
                send(Job(url, bodies, given.seconds, clients=clients), f"closed, {clients}", reference)
                for clients in given.clients
            ]
            rate = rate or LOAD * max(one.rate for one in closed)
            opened = send(Job(url, bodies, given.seconds, rate=rate, seed=1), "open", reference)
        rows += [row(stack, one) for one in (*closed, opened)]
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_serve", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/demo"), help="a synthetic one where it is not")
    parser.add_argument("--interactions", type=Path, default=Path("runs/demo/prepare/interactions.parquet"))
    parser.add_argument("--users", type=int, default=200, help="whose histories are asked with")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS), help="of the closed loops")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="directory of the JSON document")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    given.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=given.output, prefix=".ray-serve-"))
    try:
        bundle = given.bundle if given.bundle.exists() else write_bundle(work / "bundle", Shape(100_000))
        rows = measure(bundle, work, given)
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    publish("ray_serve", rows, given.output, ray=version("ray"), settings=settings)
    if any(one["wrong"] for one in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
