"""`genrec serve --ray` on a real cluster: answers as uvicorn gives them, while replicas die and bundles change."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.ray_deployment import private_environment
from tests.fakes import TinyShape, tiny_bundle
from tests.system.ray_cluster import Cluster, cluster
from tests.system.server import begun_anew, started

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

REPLICAS = 2
CPUS = REPLICAS + 1
"""One more than the replicas: where a new one proves its bundle, and starts before an old one stops."""
CLIENTS = 4
SETTINGS = {
    "GENREC_LOG_FORMAT": "json",
    "GENREC_DRAIN_DELAY_MS": "0",
    "GENREC_KEEP_ALIVE_TIMEOUT_MS": "3000",  # longer than a client here pauses, even on a busy machine
    "GENREC_MAX_BODY_BYTES": "4096",
    "OMP_NUM_THREADS": "1",
}
HISTORIES = [["i1"], ["i1", "i2"], ["i3", "i9", "i4"], [f"i{number}" for number in range(8)], []]
BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/recommend", {}),
    ("GET", "/nope", {}),
    ("GET", "/v1/items/none", {}),
    ("POST", "/recommend", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("POST", "/recommend", {"content": b"{}", "headers": {"content-type": "text/plain"}}),
    ("POST", "/recommend", {"json": {"history": ["i1"], "k": 0}}),
    ("POST", "/recommend", {"json": {"history": ["i1"], "k": 9, "num_beams": 8}}),
    ("POST", "/recommend", {"json": {"history": ["i1"], "surprise": 1}}),
    ("POST", "/recommend", {"json": {"history": ["i1"], "filter": {"where": {"none": {"eq": 1}}}}}),
    ("POST", "/recommend", {"json": {"history": ["i" * 200] * 30}}),
    ("POST", "/v1/score", {"json": {"history": ["i1"], "candidates": "i2"}}),
]


@dataclass(frozen=True)
class Fleet:
    """Replicas on a cluster, and how to change them."""

    cluster: Cluster
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, bundle: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["--ray", self.cluster.address, "--port", str(self.port), "--replicas", str(REPLICAS), *flags]
        return serve(bundle, *command, **{**self.cluster.environment, **variables})

    def versions(self) -> Counter[str]:
        """Which bundle each of some answers came from; every request on a connection of its own."""
        body = {"history": ["i1"], "k": 1}
        answers = [httpx.post(f"{self.url}/recommend", json=body).raise_for_status().json() for _ in range(8)]
        return Counter(answer["bundle"]["version"] for answer in answers)

    def answering(self) -> int:
        """How many processes answer; every request on a connection of its own."""
        samples = [httpx.get(f"{self.url}/metrics").raise_for_status().text for _ in range(4 * REPLICAS)]
        return len({re.findall(r"^process_start_time_seconds .*", text, re.MULTILINE)[0] for text in samples})

    def replicas(self) -> list[psutil.Process]:
        return self.cluster.workers("ServeReplica:genrec")


def serve(bundle: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "genrec", "serve", "--bundle", str(bundle), *flags]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200, env={**os.environ, **SETTINGS, **variables}
    )


@dataclass
class Load:
    """What clients that never stop asking were answered."""

    answers: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@contextmanager
def load(url: str, pause_s: float = 0.0) -> Iterator[Load]:
    """Clients on connections that stay open; each asks a second time where the first was not answered."""
    seen, over = Load(), threading.Event()

    def ask(client: httpx.Client, history: Sequence[str]) -> str:
        try:
            reply = client.post("/recommend", json={"history": history, "k": 3, "request_id": "r"})
        except httpx.TransportError as error:
            return repr(error)
        if reply.status_code != 200:
            return f"{reply.status_code} {reply.text}"
        answer = reply.json()
        items = [item["item_id"] for item in answer["items"]]  # scores depend on the batch, in their last digits
        seen.answers.append((answer["bundle"]["version"], json.dumps([history, items])))
        return ""

    def run(place: int) -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not over.is_set():
                history = HISTORIES[place % (len(HISTORIES) - 1)]
                if failure := ask(client, history):
                    seen.failures.append(failure)
                    if failure := ask(client, history):
                        seen.lost.append(failure)
                over.wait(pause_s)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def scored(answer: Mapping[str, Any]) -> list[list[Any]]:
    return [[item["item_id"], item["score"], item["probability"]] for item in answer["items"]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One to begin with, one to change to, and one that is damaged."""
    root = tmp_path_factory.mktemp("bundles")
    made = [tiny_bundle(root / f"seed-{seed}", TinyShape(seed=seed)) for seed in (0, 1)]
    damaged = shutil.copytree(made[1], root / "damaged")
    items = damaged / "catalog" / "items.parquet"
    items.write_bytes(items.read_bytes()[:-1] + b"?")
    return [*made, damaged]


@pytest.fixture(scope="module")
def fleet(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = Path("/tmp") / f"hap-{os.getpid()}"
    directory.mkdir(mode=0o700)
    with ExitStack() as held:
        held.callback(shutil.rmtree, directory, ignore_errors=True)
        own = private_environment(directory, [free_port() for _ in range(3)])
        made = Fleet(held.enter_context(cluster(CPUS, **own)), free_port())
        done = made.deploy(bundles[0])
        assert done.returncode == 0, done.stderr
        yield made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def versions(bundles: Sequence[Path]) -> list[str]:
    return [json.loads((bundle / "manifest.json").read_text())["version"] for bundle in bundles]


def test_answers_and_refusals_are_those_of_uvicorn(fleet: Fleet, bundles: list[Path], tmp_path: Path) -> None:
    assert len(fleet.replicas()) == REPLICAS
    assert [process.name() for process in psutil.process_iter() if "haproxy" in process.name()], "the slow proxy"
    with (
        started(bundles[0], log=tmp_path / "log", **SETTINGS) as server,
        httpx.Client(base_url=server.url, timeout=60) as alone,
        httpx.Client(base_url=fleet.url, timeout=60) as client,
    ):
        for history in HISTORIES * REPLICAS:
            body = {"history": history, "k": 5, "exclude_history": True, "request_id": "r"}
            one, other = (asked.post("/recommend", json=body) for asked in (alone, client))
            assert scored(one.json()) == scored(other.json())
            assert without_time(one.json()) == without_time(other.json())
        for method, path, request in BAD:
            one, other = (asked.request(method, path, **request) for asked in (alone, client))
            assert (one.status_code, told(one)) == (other.status_code, told(other)), (method, path, request)
            assert one.status_code >= 400
        for path in ("/health", "/ready", "/ui/", "/docs", "/v1/items?q=title&limit=3"):
            one, other = alone.get(path), client.get(path)
            assert (one.status_code, one.text) == (other.status_code, other.text), path
        reply = client.get("/ready", headers={"x-request-id": "mine-1"})
        assert reply.headers.get_list("x-request-id") == ["mine-1"]
        assert client.get("/metrics").text.startswith("# HELP")


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timing_ms"}


def told(reply: httpx.Response) -> tuple[str, dict[str, Any]]:
    document = reply.json()
    assert document.pop("request_id") == reply.headers["x-request-id"]
    return reply.headers["content-type"], document


def test_a_killed_replica_costs_at_most_what_was_under_way_and_another_takes_its_place(
    fleet: Fleet, bundles: list[Path]
) -> None:
    victim = fleet.replicas()[0]
    with load(fleet.url) as seen:
        time.sleep(1)
        victim.kill()
        wait_for(lambda: victim not in fleet.replicas() and fleet.answering() == REPLICAS)
    assert seen.lost == []
    # The proxy asks another replica where a connection ended, and closes the client's where it was reset.
    assert len(seen.failures) <= CLIENTS
    assert all("disconnected without sending a response" in failure for failure in seen.failures), seen.failures
    assert {version for version, _ in seen.answers} == set(versions(bundles[:1]))


def test_a_refused_bundle_leaves_the_old_one_serving(fleet: Fleet, bundles: list[Path]) -> None:
    before = {process.pid for process in fleet.replicas()}
    with load(fleet.url, pause_s=0.05) as seen:
        done = fleet.deploy(bundles[2])
    assert done.returncode == 65, done.stderr
    assert re.search(r"^genrec serve: .*items\.parquet.*$", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    assert (seen.failures, {version for version, _ in seen.answers}) == ([], set(versions(bundles[:1])))
    assert before <= {process.pid for process in fleet.replicas()}


def test_a_new_bundle_takes_the_place_of_the_old_one_under_load_without_a_failed_request(
    fleet: Fleet, bundles: list[Path]
) -> None:
    with load(fleet.url, pause_s=0.05) as seen:
        done = fleet.deploy(bundles[1])
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    assert seen.failures == []
    old, new = versions(bundles[:2])
    assert {version for version, _ in seen.answers} == {old, new}
    # Each bundle has one answer to each history, so no answer is of both.
    kinds = {(version, str(json.loads(text)[0])) for version, text in seen.answers}
    assert len(set(seen.answers)) == len(kinds)
    assert set(fleet.versions()) == {new}


def test_a_cluster_is_not_joined_without_its_token(fleet: Fleet, bundles: list[Path]) -> None:
    done = fleet.deploy(bundles[1], RAY_AUTH_TOKEN_PATH="", RAY_AUTH_TOKEN="0" * 64)
    assert (done.returncode, "token" in done.stderr) == (65, True), done.stderr


def test_a_cluster_of_its_own_serves_until_it_is_told_to_stop_and_leaves_nothing(
    bundles: list[Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = begun_anew(bundles[0], "--ray", "local", log=log, **SETTINGS)
    try:
        wait_for(lambda: '"replicas": 1' in log.read_text() or process.poll() is not None)
        children = psutil.Process(process.pid).children(recursive=True)
        url = re.findall(r'"url": "(http://127\.0\.0\.1:\d+)", "bundle"', log.read_text())[-1]
        assert httpx.get(f"{url}/ready").status_code == 200
        assert children
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == 0, log.read_text()
    wait_for(lambda: not any(child.is_running() for child in children))


def test_a_refused_bundle_at_the_start_is_a_sentence_and_65(bundles: list[Path]) -> None:
    done = serve(bundles[2], "--ray", "local", "--port", "0")
    assert done.returncode == 65, done.stderr
    assert re.search(r"^genrec serve: .*items\.parquet.*$", done.stderr, re.MULTILINE), done.stderr


def wait_for(holds: Callable[[], bool], patience_s: float = 200) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.2)
