"""A real server with short deadlines, shared by the tests that attack it; after each it must be as it was."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.pair import Pair, make_pair
from tests.system.server import Server, started

HEADER_TIMEOUT_S, RECEIVE_TIMEOUT_S, KEEP_ALIVE_TIMEOUT_S, WRITE_TIMEOUT_S = 1.0, 2.0, 1.5, 2.0
MAX_CONNECTIONS = 300
GOLDEN = {"history": ["i1", "i2"], "k": 3}


@dataclass(frozen=True)
class Attacked:
    """A server, and what it answered before anyone attacked it."""

    server: Server
    golden: list[Any]

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def metric(self, sample: str) -> float:
        lines = httpx.get(f"{self.server.url}/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.rpartition(" ")[0] == sample), 0.0)

    def check(self) -> None:
        """The same process answers as ever, and holds nothing back."""
        assert self.server.process.poll() is None
        assert httpx.get(f"{self.server.url}/health").status_code == 200
        assert httpx.post(f"{self.server.url}/recommend", json=GOLDEN).json()["items"] == self.golden
        assert self.metric("genrec_queue_depth") == 0


@pytest.fixture(scope="session")
def attacked_server(causal_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    numbers = {
        "GENREC_HEADER_TIMEOUT_MS": HEADER_TIMEOUT_S * 1e3,
        "GENREC_RECEIVE_TIMEOUT_MS": RECEIVE_TIMEOUT_S * 1e3,
        "GENREC_KEEP_ALIVE_TIMEOUT_MS": KEEP_ALIVE_TIMEOUT_S * 1e3,
        "GENREC_WRITE_TIMEOUT_MS": WRITE_TIMEOUT_S * 1e3,
        "GENREC_MAX_CONNECTIONS": MAX_CONNECTIONS,
    }
    environment = {name: f"{value:.0f}" for name, value in numbers.items()}
    log = tmp_path_factory.mktemp("attacked") / "log"
    with started(causal_bundle_path, log=log, **environment) as server:
        yield Attacked(server, httpx.post(f"{server.url}/recommend", json=GOLDEN).json()["items"])
        lines = log.read_text().splitlines()
        assert all(json.loads(line)["event"] for line in lines), "a line is an event, whatever was sent"
        assert [line for line in lines if '"level": "info"' not in line or "Traceback" in line] == []


@pytest.fixture
def attacked(attacked_server: Attacked) -> Iterator[Attacked]:
    yield attacked_server
    attacked_server.check()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))
