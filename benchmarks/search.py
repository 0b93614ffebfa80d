"""Do title search, the tree and new filters stay quick at millions of items, also beside a model that never rests?

`python -m benchmarks.search` makes a synthetic bundle, starts a real `genrec serve` on it and asks it over HTTP, first
alone, then while clients have it decode one answer after another. Every search is typed letter by letter, every filter
is one that was never asked before. Linux only.
"""

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks.report import publish
from benchmarks.synthetic import GENRES, Shape, write_bundle

ASKED_MS = 50.0
"""p99 of a search and of a new filter beside decoding, that the project asks of itself."""

PATIENCE_S = 300
Ask = Callable[[httpx.Client], httpx.Response]
Where = Mapping[str, Any]


@contextmanager
def serving(bundle: Path, log: Path) -> Iterator[str]:
    """A real server, its titles indexed; gives where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "genrec", "serve", "--bundle", str(bundle), "--port", str(port)]
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    url, begin = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while not _searches(url):
            if process.poll() is not None or time.monotonic() - begin > PATIENCE_S:
                raise RuntimeError(f"genrec serve cannot be asked:\n{log.read_text()}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _searches(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/v1/items", params={"q": "a"}, timeout=60).status_code == httpx.codes.OK
    return False


def searches(num_items: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """What people type, endlessly: a kind and a text for each key that is pressed."""
    words = ("Golden", "Dream", "Iron", "Castle", "Hidden", "Harbour")
    while True:
        title = f"{dice.choice(words)} {dice.choice(words)} {dice.randrange(num_items)}"
        yield from (("search, typed", title[:end]) for end in range(1, len(title) + 1))
        yield from (("search, inside words", word) for word in ("olde", "astl", "rbou", "idde"))
        yield from (("search, nothing found", word) for word in ("zzz", "golden xylophone", "qwertz", "dreamz"))


def filters(numbers: Iterator[int]) -> dict[str, Callable[[], Where]]:
    """Makers of filters, none of which comes twice."""

    def price() -> float:
        number = next(numbers)
        return number % 50_000 / 997 + number * 1e-9

    def genres() -> list[str]:
        number = next(numbers)
        return [GENRES[number % len(GENRES)], f"none-{number}"]

    return {
        "number": lambda: {"price": {"gte": price()}},
        "list of strings": lambda: {"genres": {"any_of": genres()}},
        "three conditions": lambda: {
            "or": [{"year": {"gte": 2020}}, {"price": {"lte": price()}}, {"not": {"genres": {"any_of": genres()}}}]
        },
    }


def asks(num_items: int, seed: int) -> Iterator[tuple[str, Ask]]:
    """Endlessly: what is asked, and how."""
    dice = random.Random(seed)
    typed, kinds = searches(num_items, dice), filters(count(seed * 1_000_000))
    while True:
        for kind, text in islice(typed, 12):
            yield kind, partial(_get, "/v1/items", {"q": text})
        item = f"item-{dice.randrange(num_items):08d}"
        yield "neighbours", partial(_get, f"/v1/items/{item}/similar", {})
        yield "tree, root", partial(_get, "/v1/tree", {})
        yield "tree, one code", partial(_get, "/v1/tree", {"prefix": str(dice.randrange(256))})
        yield "answer, no filter", partial(_recommend, [item], None)
        yield "answer, known filter", partial(_recommend, [item], {"year": {"gte": 1990}})
        for name, make in kinds.items():
            # Without a history the model is not asked: what it takes is the filter, the queue, and HTTP.
            yield f"new filter alone, {name}", partial(_recommend, [], make())
            yield f"answer, new filter, {name}", partial(_recommend, [item], make())


def _get(path: str, params: Mapping[str, str], client: httpx.Client) -> httpx.Response:
    return client.get(path, params=params)


def _recommend(history: list[str], where: Where | None, client: httpx.Client) -> httpx.Response:
    body = {"history": history, "fields": [], **({"filter": {"where": where}} if where else {})}
    return client.post("/recommend", json=body)


def ask_for(url: str, num_items: int, seconds: float, seed: int) -> dict[str, list[float]]:
    """Milliseconds of every request of one client, by kind."""
    taken: dict[str, list[float]] = {}
    end = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=60) as client:
        for kind, ask in asks(num_items, seed):
            if time.monotonic() > end:
                return taken
            begin = time.perf_counter()
            ask(client).raise_for_status()
            taken.setdefault(kind, []).append((time.perf_counter() - begin) * 1e3)
            time.sleep(0.01)  # a person, not a flood
    return taken


@contextmanager
def decoding(url: str, num_items: int, clients: int) -> Iterator[list[float]]:
    """Meanwhile clients ask for one answer after another; gives milliseconds of each."""
    stop = threading.Event()
    taken: list[float] = []

    def decode(seed: int) -> None:
        dice = random.Random(seed)
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                history = [f"item-{dice.randrange(num_items):08d}" for _ in range(10)]
                begin = time.perf_counter()
                _recommend(history, None, client).raise_for_status()
                taken.append((time.perf_counter() - begin) * 1e3)

    with ThreadPoolExecutor(max(clients, 1)) as pool:
        running = [pool.submit(decode, 1_000 + number) for number in range(clients)]
        try:
            yield taken
        finally:
            stop.set()
        for client in running:
            client.result()


def measure(url: str, num_items: int, seconds: float, clients: int) -> list[dict[str, object]]:
    """A row for each kind of request, without and with clients that decode."""
    rows: list[dict[str, object]] = []
    ask_for(url, num_items, min(seconds, 5.0), seed=1)  # warms up
    for place, decoders in enumerate((0, clients)):
        with decoding(url, num_items, decoders) as others:
            taken = ask_for(url, num_items, seconds, seed=2 + place)
        if others:
            taken["answers of those clients"] = others
        rows += [
            {
                "what": kind,
                "decoding clients": decoders,
                "requests": len(ms),
                "p50 ms": float(np.percentile(ms, 50)),
                "p99 ms": float(np.percentile(ms, 99)),
                "slowest ms": max(ms),
            }
            for kind, ms in sorted(taken.items())
        ]
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=2_000_000, help="of the catalog")
    parser.add_argument("--seconds", type=float, default=60.0, help="of asking, without and with decoding")
    parser.add_argument("--clients", type=int, default=4, help="that have the model decode")
    parser.add_argument("--model", default="tiger", help="of the synthetic bundle")
    parser.add_argument("--bundle", type=Path, help="a synthetic bundle of --items that is there already")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="directory of the JSON document")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    given.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=given.output, prefix=".search-"))
    try:
        bundle = given.bundle or write_bundle(work / "bundle", Shape(given.items, model=given.model))
        with serving(bundle, work / "log") as url:
            rows = measure(url, given.items, given.seconds, given.clients)
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    shown = {name: str(value) for name, value in vars(given).items()}
    publish("search", rows, given.output, settings=shown, asked_ms=ASKED_MS)


if __name__ == "__main__":
    main()
