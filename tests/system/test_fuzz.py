"""A real server against bodies that a machine made up. A body that ever got a 5xx goes into the corpus, for good."""

import http.client
import json
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.test_hostile import mutated

pytestmark = pytest.mark.system

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.body"))
PATHS = ("/recommend", "/v1/recommend/batch", "/v1/score")
CLIENTS = 4
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def send(client: http.client.HTTPConnection, path: str, body: bytes) -> int:
    """The status of the reply, which must be JSON to the letter and, if it is no answer, a small problem."""
    client.request("POST", path, body, {"Content-Type": "application/json"})
    reply = client.getresponse()
    content = json.loads(reply.read(), parse_constant=lambda constant: pytest.fail(f"{constant} for {body!r}"))
    if reply.status != 200:
        assert reply.getheader("content-type") == "application/problem+json"
        assert content["status"] == reply.status
        assert len(content["detail"]) < 500
    return reply.status


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_what_once_broke_a_server_is_refused(attacked, file):
    client = http.client.HTTPConnection("127.0.0.1", attacked.port, timeout=5)
    for path in PATHS:
        assert send(client, path, file.read_bytes()) in (400, 422)
    client.close()


def test_ten_thousand_mutated_bodies_get_no_5xx_and_no_silence(attacked):
    def some(seed: int) -> Counter[int]:
        chance = random.Random(seed)
        client = http.client.HTTPConnection("127.0.0.1", attacked.port, timeout=5)
        seen: Counter[int] = Counter()
        for number in range(10_000 // CLIENTS):
            body = mutated(chance)
            begin = time.monotonic()
            status = send(client, PATHS[number % len(PATHS)], body)
            assert status in (200, 400, 422), (status, body)
            assert time.monotonic() - begin < 2, body
            seen[status] += 1
        client.close()
        return seen

    with ThreadPoolExecutor(CLIENTS) as pool:
        seen = sum(pool.map(some, range(CLIENTS)), Counter[int]())
    assert seen.total() == 10_000
    assert set(seen) == {200, 400, 422}


@pytest.mark.parametrize("cases", [100, pytest.param(400, marks=pytest.mark.soak)])
def test_replies_to_whatever_the_interface_allows_or_forbids_are_as_it_says(attacked, tmp_path, cases):
    """Schemathesis: so many cases for each operation, of a fixed seed."""
    # A request may ask for a deadline that cannot be met: 504 is an answer that it is told of.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 504]\n'
    )
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{attacked.server.url}/openapi.json", "--checks", CHECKS,
        "--phases", "coverage,fuzzing", "--max-examples", str(cases), "--mode", "all", "--seed", "1", "--workers", "2",
        "--exclude-path", "/v1/recommend", "--request-timeout", "10", "--no-color",
        "--suppress-health-check", "all", "--generation-deterministic",
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout[-6_000:] + ran.stderr[-2_000:]
