"""What does a large catalog cost: seconds to write, to load and to be ready, memory, search?

`python -m benchmarks.catalog_size` makes a synthetic bundle of each size, times every step of loading it in this
process, then starts a real `genrec serve` on it. Linux only: memory is read from /proc.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import httpx
import pyarrow.parquet as pq
from transformers.utils import logging as transformers_logging

from benchmarks.report import publish
from benchmarks.synthetic import Shape, seal_synthetic, write_synthetic_draft
from genrec.bundle import layout, load_bundle
from genrec.bundle.catalog import read_catalog
from genrec.bundle.contents import check_files
from genrec.bundle.manifest import read_manifest
from genrec.bundle.verify import check_item_trie, open_id_trie
from genrec.models import load_model, load_tokenizer
from genrec.recommender import Recommender
from genrec.semantic_id import first_unordered
from genrec.trie import ItemTrie
from service.browser import CatalogBrowser

SIZES = (10_000, 100_000, 1_000_000, 2_000_000)
PATIENCE_S = 600

T = TypeVar("T")


class Steps(dict[str, float]):
    """Seconds of named steps, in the order in which they ran."""

    def time(self, name: str, step: Callable[[], T], repeats: int = 3) -> T:
        """Run a step `repeats` times and keep the shortest time; the last result comes back."""
        taken = []
        for _ in range(repeats):
            begin = time.perf_counter()
            result = step()
            taken.append(time.perf_counter() - begin)
        self[name] = min(taken)
        return result


def write(work: Path, shape: Shape) -> tuple[Path, Steps]:
    """A sealed bundle in `work`, and what writing it took (`draft` includes drawing the random items)."""
    steps = Steps()
    draft = steps.time("draft", lambda: write_synthetic_draft(work, shape), repeats=1)
    return steps.time("seal", lambda: seal_synthetic(draft, work / "bundle"), repeats=1), steps


def load(bundle: Path) -> Steps:
    """Every step that `Recommender.load` takes, one by one, then all of it."""
    steps = Steps()
    manifest = read_manifest(bundle / layout.MANIFEST)
    tokens = manifest.item_tokens
    steps.time("hashing", lambda: check_files(bundle, manifest))
    steps.time("parquet", lambda: pq.read_table(bundle / layout.ITEMS))
    catalog = steps.time("catalog", lambda: read_catalog((bundle / layout.ITEMS).read_bytes(), tokens))
    paths = steps.time("paths", lambda: tokens.paths(catalog.codes))
    steps.time("order", lambda: first_unordered(paths))
    trie = steps.time("trie", lambda: ItemTrie.from_sorted(paths))
    steps.time("item trie", lambda: check_item_trie((bundle / layout.ITEM_TRIE).read_bytes(), trie))
    steps.time("id trie", lambda: open_id_trie((bundle / layout.ID_TRIE).read_bytes(), catalog))
    steps.time("model", lambda: load_model(bundle / layout.MODEL, manifest.architecture))
    steps.time("tokenizer", lambda: load_tokenizer(bundle / layout.MODEL))
    recommender = Recommender.of(steps.time("load_bundle", lambda: load_bundle(bundle), repeats=1))
    steps.time("golden", recommender.replay_golden)
    steps.time("browser", lambda: CatalogBrowser(recommender.bundle.catalog, trie))
    return steps


def serve(bundle: Path) -> dict[str, float]:
    """A real server: seconds until /ready, MiB resident then and at most, milliseconds of searches and answers.

    The first answer without a filter also warms the engine up.
    """
    begin = time.perf_counter()
    with _server(bundle) as (process, client):
        while not _is_ready(client):
            if process.poll() is not None or time.perf_counter() - begin > PATIENCE_S:
                raise RuntimeError(f"genrec serve is not ready after {time.perf_counter() - begin:.0f} s.")
            time.sleep(0.02)
        found = {
            "ready_s": time.perf_counter() - begin,
            "rss_mib": _memory(process.pid, "VmRSS"),
            "peak_mib": _memory(process.pid, "VmHWM"),
        }
        for name, query in (("rare", "crimson castle 4711"), ("common", "dream"), ("none", "zzz"), ("all", "")):
            found[f"search_{name}_ms"] = _median_ms(partial(client.get, "/v1/items", params={"q": query}))
        found["popular_ms"] = _median_ms(partial(client.post, "/recommend", json={"history": []}))
        found |= _filtered(client)
        found["later_rss_mib"] = _memory(process.pid, "VmRSS")
    return found


def _filtered(client: httpx.Client) -> dict[str, float]:
    """Milliseconds of a recommendation: without a filter, the first time with one, and again."""
    item = client.get("/v1/items", params={"limit": 1}).json()["items"][0]["item_id"]
    found = {}
    filters: dict[str, dict[str, object]] = {
        "year": {"year": {"gte": 2000}},
        "genres": {"genres": {"any_of": ["Drama"]}, "year": {"gte": 1990}},
    }
    for name, where in (("none", {}), *filters.items()):
        ask = partial(client.post, "/recommend", json={"history": [item], "filter": {"where": where}})
        found[f"filter_{name}_first_ms"] = _median_ms(ask, times=1)
        found[f"filter_{name}_ms"] = _median_ms(ask)
    return found


@contextmanager
def _server(bundle: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "genrec", "serve", "--bundle", str(bundle), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield process, client
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _memory(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _median_ms(ask: Callable[[], httpx.Response], times: int = 7) -> float:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        ask().raise_for_status()
        taken.append((time.perf_counter() - begin) * 1e3)
    return median(taken)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog_size", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=SIZES, help="sizes to measure")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="directory of the JSON document")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    given.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for num_items in given.items:
        work = Path(tempfile.mkdtemp(dir=given.output, prefix=".catalog-size-"))
        try:
            bundle, writing = write(work, Shape(num_items))
            size = sum(file.stat().st_size for file in (bundle / "catalog").iterdir()) / 2**20
            rows.append({"items": num_items, "catalog_mib": size, **writing, **load(bundle), **serve(bundle)})
        finally:
            shutil.rmtree(work)
    columns = [{"": key, **{f"{row['items']:,}": row[key] for row in rows}} for key in rows[0] if key != "items"]
    publish("catalog_size", columns, given.output)


if __name__ == "__main__":
    main()
