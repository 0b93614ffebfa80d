"""What does it cost to switch items off and on in a service that is being asked, and does it ever answer wrongly?

`python -m benchmarks.availability` makes a synthetic bundle, starts a real `genrec serve` on it, and switches a part of
its items off and on while clients ask. Every answer is held against the one catalog version that it carries. In the end
the process is killed in the middle of a change and started again. It exits with 1 if anything was wrong. Linux only.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks.report import publish
from benchmarks.synthetic import Shape, write_bundle

TOKEN = "a-token-of-the-benchmark"
PATIENCE_S = 600


@dataclass(frozen=True)
class Server:
    """A process that is ready, and how long it took."""

    process: subprocess.Popen[bytes]
    url: str
    admin_url: str
    ready_s: float

    @property
    def main(self) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=self.url, timeout=60)

    @property
    def admin(self) -> httpx.Client:
        """A client of its administrators."""
        return httpx.Client(base_url=self.admin_url, timeout=60, headers={"Authorization": f"Bearer {TOKEN}"})


@dataclass
class Known:
    """What the client knows.

    Attributes:
        off: which items are off at each version, the one under way included.
        version: the last that was acknowledged.
    """

    off: dict[int, frozenset[str]] = field(default_factory=lambda: {0: frozenset()})
    version: int = 0

    def change(self, admin: httpx.Client, item_ids: Sequence[str]) -> float:
        """Switch each of the items to what it is not now; milliseconds until that is acknowledged."""
        now = self.off[self.version]
        off, on = [one for one in item_ids if one not in now], [one for one in item_ids if one in now]
        self.off[self.version + 1] = (now | set(off)) - set(on)  # before it is sent: it may be seen at once
        begin = time.perf_counter()
        try:
            reply = admin.post("/admin/catalog", json={"off": off, "on": on}).raise_for_status().json()
        except httpx.TransportError:
            return float("nan")
        taken_ms = (time.perf_counter() - begin) * 1e3
        self.version += 1
        if reply["catalog_version"] != self.version:
            raise RuntimeError(f"version {self.version} was acknowledged as {reply['catalog_version']}.")
        return taken_ms


@dataclass
class Seen:
    """What the clients met."""

    milliseconds: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    stale: int = 0


@contextmanager
def serving(bundle: Path, work: Path, name: str) -> Iterator[Server]:
    """A real server on the state in `work`."""
    log = work / f"{name}.log"
    (work / "token").write_text(TOKEN)
    environment = {
        **os.environ,  # noqa: TID251  a child's, with settings laid over it
        "GENREC_STATE_DIR": str(work / "state"),
        "GENREC_ADMIN_LISTEN": "127.0.0.1:0",
        "GENREC_ADMIN_TOKEN_FILE": str(work / "token"),
        "GENREC_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "genrec", "serve", "--bundle", str(bundle), "--port", "0"]
    begin = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stderr=stream)
    try:
        while '"ready"' not in (said := log.read_text()):
            if process.poll() is not None or time.perf_counter() - begin > PATIENCE_S:
                raise RuntimeError(f"genrec serve is not ready:\n{said}")
            time.sleep(0.05)
        urls = [re.search(pattern, said) for pattern in (r"http://127\.0\.0\.1:\d+", r'"admin_port": ?"(\d+)"')]
        main, admin = (found for found in urls if found)
        yield Server(process, main[0], f"http://127.0.0.1:{admin[1]}", time.perf_counter() - begin)
    finally:
        process.terminate()
        process.wait(60)


def ask(
    server: Server, known: Known, seen: Seen, item_ids: Sequence[str], stopped: Callable[[], bool], seed: int
) -> None:
    """One client, one request after another until it is `stopped`."""
    dice = random.Random(seed)
    with server.main as main:
        while not stopped():
            acknowledged = known.version
            body = {"history": dice.sample(item_ids, 10), "k": 10, "fields": []}
            begin = time.perf_counter()
            try:
                answer = main.post("/recommend", json=body).raise_for_status().json()
            except httpx.HTTPError:
                seen.failed += 1
                continue
            seen.milliseconds.append((time.perf_counter() - begin) * 1e3)
            seen.versions.append(answer["catalog_version"])
            items = [item["item_id"] for item in answer["items"]]
            seen.stale += answer["catalog_version"] < acknowledged
            seen.wrong += len(items) != body["k"] or not known.off[answer["catalog_version"]].isdisjoint(items)


def under_load(
    server: Server, known: Known, item_ids: Sequence[str], given: argparse.Namespace
) -> tuple[Seen, Seen, list[float]]:
    """What clients meet while nothing is switched, then while `given.changes` are made, and milliseconds of those."""
    quiet, busy, taken, dice = Seen(), Seen(), [], random.Random(0)
    for seen, changes in ((quiet, 0), (busy, given.changes)):
        stop = threading.Event()
        with ThreadPoolExecutor(given.clients) as pool, server.admin as admin:
            clients = [
                pool.submit(ask, server, known, seen, item_ids, stop.is_set, number) for number in range(given.clients)
            ]
            try:
                for _ in range(changes):
                    begin = time.perf_counter()
                    taken.append(known.change(admin, dice.sample(item_ids, given.switched)))
                    time.sleep(max(0.0, given.every_s - (time.perf_counter() - begin)))
                if not changes:
                    time.sleep(given.every_s * given.changes / 4)
            finally:
                stop.set()
            for client in clients:
                client.result()
    return quiet, busy, taken


def killed(server: Server, known: Known, item_ids: Sequence[str], switched: int) -> int:
    """Kill the server in the middle of change after change; the last version that was acknowledged."""
    dice = random.Random(1)
    killer = threading.Timer(1.0, server.process.kill)
    with server.admin as admin:
        killer.start()
        while not np.isnan(known.change(admin, dice.sample(item_ids, switched))):
            pass
    killer.join()
    return known.version


def measure(bundle: Path, work: Path, given: argparse.Namespace) -> list[dict[str, object]]:
    """One row a fact."""
    item_ids, known = [f"item-{number:08d}" for number in range(given.items)], Known()
    with serving(bundle, work, "first") as server:
        quiet, busy, taken = under_load(server, known, item_ids, given)
        with server.admin as admin:
            at_once = [known.change(admin, item_ids[: min(given.items, 100_000)]) for _ in range(5)]
        acknowledged = killed(server, known, item_ids, given.switched)
    with serving(bundle, work, "again") as server, server.admin as admin, server.main as main:
        status, info = admin.get("/admin/catalog").json(), main.get("/info").json()
        kept = status["catalog_version"] >= acknowledged
        same = status["items_off"] == info["items_off"] == len(known.off[status["catalog_version"]])
        checked, end = Seen(), time.monotonic() + 5.0
        ask(server, known, checked, item_ids, lambda: time.monotonic() > end, 2)
        again_s = server.ready_s
    return [
        {"": "changes under load", "value": len(taken)},
        {"": "items switched in each", "value": given.switched},
        {"": "requests meanwhile", "value": len(busy.versions)},
        {"": "versions seen in answers", "value": len(set(busy.versions))},
        {"": "requests failed", "value": quiet.failed + busy.failed + checked.failed},
        {"": "answers not of their version", "value": quiet.wrong + busy.wrong + checked.wrong},
        {"": "answers older than acknowledged", "value": busy.stale + checked.stale},
        {"": "acknowledged, median ms", "value": float(np.median(taken))},
        {"": "acknowledged, slowest ms", "value": float(max(taken))},
        {"": "100,000 at once on an idle service, median ms", "value": float(np.median(at_once))},
        {"": "answer without changes, p50 ms", "value": float(np.percentile(quiet.milliseconds, 50))},
        {"": "answer without changes, p99 ms", "value": float(np.percentile(quiet.milliseconds, 99))},
        {"": "answer under changes, p50 ms", "value": float(np.percentile(busy.milliseconds, 50))},
        {"": "answer under changes, p99 ms", "value": float(np.percentile(busy.milliseconds, 99))},
        {"": "acknowledged before the kill, version", "value": acknowledged},
        {"": "version after the restart", "value": status["catalog_version"]},
        {"": "lost or changed by the kill", "value": int(not (kept and same))},
        {"": "state file, bytes", "value": (work / "state" / "items-off").stat().st_size},
        {"": "seconds to ready, started again", "value": again_s},
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.availability", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000, help="of the catalog")
    parser.add_argument("--switched", type=int, default=10_000, help="items switched off or on by each change")
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--every-s", type=float, default=1.0, help="seconds from one change to the next")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--model", default="tiny-llama", help="of the synthetic bundle")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="directory of the JSON document")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    given.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=given.output, prefix=".availability-"))
    try:
        bundle = write_bundle(work / "bundle", Shape(given.items, model=given.model))
        rows = measure(bundle, work, given)
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    publish("availability", rows, given.output, settings={**vars(given), "output": str(given.output)})
    wrong = ("requests failed", "answers not of their version", "answers older than acknowledged")
    if any(row["value"] for row in rows if row[""] in (*wrong, "lost or changed by the kill")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
