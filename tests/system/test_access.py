"""Keys at a real server that others can reach: who gets in, and that no secret is written anywhere."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.service.fakes import BREAKS, KILLS
from tests.system.raw import exchange
from tests.system.server import Server, _wait_until_ready

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
KEY, NEXT, METRICS, ADMIN = (
    "canary-key-0123456789",
    "canary-key-that-follows",
    "canary-of-metrics-0",
    "canary-of-admins-00",
)


@pytest.fixture
def guarded(tmp_path):
    """A server with faults on demand, on every address, with all kinds of tokens."""
    for name, content in {"keys": f"shop {KEY}\n", "metrics": METRICS, "admin": ADMIN}.items():
        (tmp_path / name).write_text(content)
    environment = {
        "GENREC_HOST": "0.0.0.0",
        "GENREC_API_KEYS_FILE": tmp_path / "keys",
        "GENREC_METRICS_TOKEN_FILE": tmp_path / "metrics",
        "GENREC_ADMIN_TOKEN_FILE": tmp_path / "admin",
        "GENREC_ADMIN_LISTEN": "0",
        "GENREC_STATE_DIR": tmp_path / "state",
        "GENREC_LOG_FORMAT": "json",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.service.faulty", "--bundle", "any", "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {name: str(value) for name, value in environment.items()},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _wait_until_ready(process, log)
        port = next(json.loads(line)["admin_port"] for line in log.read_text().splitlines() if "admin_port" in line)
        yield Server(process, url, f"http://127.0.0.1:{port}"), log, tmp_path / "keys"
    finally:
        process.kill()
        process.wait()


def ask(url: str, key: str | None, history: list[str], **headers: str) -> int:
    given = {"x-api-key": key} if key else {}
    return httpx.post(f"{url}/recommend", json={"history": history}, headers=given | headers, timeout=30).status_code


def test_no_secret_is_in_a_log_whatever_happens_and_every_line_is_an_event(guarded):
    server, log, _ = guarded
    url, port = server.url, int(server.url.rpartition(":")[2])
    bearer = {"authorization": f"Bearer {KEY}"}
    assert ask(url, KEY, ["1"]) == 200
    assert httpx.post(f"{url}/recommend", json={"history": 1, KEY: KEY}, headers=bearer).status_code == 422
    assert ask(url, KEY, [BREAKS]) == 500
    assert httpx.get(f"{url}/{KEY}?key={KEY}", headers=bearer).status_code == 404
    assert httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {METRICS}"}).status_code == 200
    for secret in (KEY, ADMIN):
        status = httpx.get(
            f"{server.admin_url}/admin/catalog", headers={"authorization": f"Bearer {secret}"}
        ).status_code
        assert status == (200 if secret == ADMIN else 401)
    assert exchange(port, f"GET /health HTTP/1.1\r\nX-API-Key: {KEY}\r\n\0\r\n\r\n".encode()).statuses == [400]
    for name in ("a\u2028b", "\x1b[31mred", "a%0d%0aX: 1", "é"):
        evil = b"GET /v1/items/%b HTTP/1.1\r\nHost: x\r\nX-Request-ID: %b\r\nX-API-Key: %b\r\nConnection: close\r\n\r\n"
        reply = exchange(port, evil % (b"a%0a%1b[31m%e2%80%a8", name.encode(), KEY.encode()))
        assert reply.statuses in ([400], [404])
        assert len([line for line in reply.head.splitlines() if line.startswith(("x-request-id", "x: "))]) == 1
    wrong = [ask(url, f"{KEY}-{number}", ["1"]) for number in range(12)]
    assert wrong[0] == 401 and wrong[-1] == 429
    assert ask(url, KEY, ["1"]) == 200
    assert ask(url, KEY, [KILLS]) == 503
    assert server.process.wait(20) == 70
    lines = log.read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert all(event["event"] for event in events)
    assert {event["status"] for event in events if event["event"] == "request"} >= {200, 401, 404, 422, 429, 500, 503}
    assert {event.get("key") for event in events if event["event"] == "request"} == {None, "shop"}
    assert not [line for line in lines if "canary" in line]


def test_a_key_takes_the_place_of_another_while_requests_come_in(guarded):
    server, log, keys = guarded
    assert (ask(server.url, KEY, ["1"]), ask(server.url, NEXT, ["1"])) == (200, 401)
    replace(keys, f"shop {KEY}\nshop-next {NEXT}\n")
    until(lambda: ask(server.url, NEXT, ["1"]) == 200)
    assert ask(server.url, KEY, ["1"]) == 200
    replace(keys, "too short\n")
    until(lambda: "former tokens stay" in log.read_text())
    assert (ask(server.url, KEY, ["1"]), ask(server.url, NEXT, ["1"])) == (200, 200)
    replace(keys, f"shop-next {NEXT}\n")
    until(lambda: ask(server.url, KEY, ["1"]) == 401)
    assert ask(server.url, NEXT, ["1"]) == 200


def replace(file: Path, content: str) -> None:
    beside = file.with_name("beside")
    beside.write_text(content)
    beside.replace(file)


def until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_nothing_but_the_probes_is_told_to_a_stranger(guarded):
    server = guarded[0]
    for path in ("/health", "/ready"):
        assert httpx.get(server.url + path).status_code == 200
    for path in ("/", "/info", "/metrics", "/docs", "/openapi.json", "/ui/", "/v1/items?q=a", "/health/", "//health"):
        reply = httpx.get(server.url + path, headers={"origin": "https://elsewhere.example"})
        assert reply.status_code == 401, path
        assert {"server", "access-control-allow-origin", "x-powered-by"}.isdisjoint(reply.headers)
        assert reply.headers["x-content-type-options"] == "nosniff"
