"""The nginx that is shipped, before real services: replicas come, stop and die, and no client notices."""

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import KINDS
from service.schemas import Problem
from tests.system.faulty import faulty, run
from tests.system.front import Front, Replicas, free_port, front, under_load
from tests.system.pair import HISTORIES, REQUESTS, ROWS, K, Pair
from tests.system.wire import Lines, Reply, post

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]

ADDRESSES = ("127.0.1.1", "127.0.1.2")
BODY = {"history": HISTORIES[0], "k": K}
RATE = 40.0
FORGOTTEN_S = 2.2
"""nginx counts in whole seconds: what it was told holds for the second it came in and the one after."""


@pytest.fixture(scope="module")
def replicas(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    started = Replicas(pair.a, tmp_path_factory.mktemp("replicas"), free_port())
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def nginx(replicas: Replicas, tmp_path: Path) -> Iterator[Front]:
    replicas.all_ready(ADDRESSES)
    with front(tmp_path, replicas.port, ADDRESSES) as started:
        yield started


def test_every_replica_has_its_share(nginx: Front, replicas: Replicas, pair: Pair) -> None:
    before = [replicas.answered(address) for address in ADDRESSES]
    replies = run(asking(nginx, 60))
    assert all(pair.right(reply, number % len(REQUESTS)) for number, reply in enumerate(replies))
    shares = [replicas.answered(address) - was for address, was in zip(ADDRESSES, before, strict=True)]
    assert sum(shares) == 60
    assert min(shares) >= 10  # 30 each but for chance: fewer than 10 in one of ten million runs


async def asking(nginx: Front, times: int) -> list[Reply]:
    lines = Lines(nginx.port)
    replies = [await lines.ask(REQUESTS[number % len(REQUESTS)]) for number in range(times)]
    lines.close()
    return replies


def test_a_replica_that_stops_and_comes_back_costs_no_request(nginx: Front, replicas: Replicas, pair: Pair) -> None:
    address = ADDRESSES[1]

    def stop_and_start() -> None:
        time.sleep(0.5)
        process = replicas.processes[address]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        replicas.start(address)  # refuses connections at first, then says 503 while it loads
        replicas.wait_until_ready(address)
        time.sleep(0.5)

    replies = run(under_load(nginx.port, REQUESTS, RATE, asyncio.to_thread(stop_and_start)))
    assert all(pair.right(reply, number % len(REQUESTS)) for number, reply in enumerate(replies))
    tried = {line["statuses"] for line in nginx.logged()}
    assert {"502, 200", "503, 200"} <= tried


def test_replicas_are_found_and_forgotten_while_it_runs(nginx: Front, replicas: Replicas) -> None:
    before = [replicas.answered(address) for address in ADDRESSES]
    for address in ADDRESSES:
        nginx.names.addresses = [address]
        time.sleep(FORGOTTEN_S)
        run(asking(nginx, 20))
    shares = [replicas.answered(address) - was for address, was in zip(ADDRESSES, before, strict=True)]
    assert shares == [20, 20]


BAD_REQUESTS: dict[str, tuple[int, dict[str, Any]]] = {
    "not JSON": (400, {"content": b"{"}),
    "too large": (413, {"content": b" " * (300 * 1024)}),
    "not declared as JSON": (415, {"content": b"{}", "headers": {"content-type": "text/plain"}}),
    "a field that does not fit": (422, {"content": b'{"history": [], "k": -1}'}),
    "no such path": (404, {"url": "/nothing"}),
    "no such method": (405, {"method": "PUT"}),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_refusal_of_the_service_comes_through_byte_for_byte(nginx: Front, replicas: Replicas, case: str) -> None:
    status, fields = BAD_REQUESTS[case]
    request = {"method": "POST", "url": "/recommend", **fields}
    headers = {"content-type": "application/json", "x-request-id": "given-1", **request.pop("headers", {})}
    with httpx.Client(headers=headers) as client:
        there, through = (
            client.request(request["method"], base + request["url"], content=request.get("content"))
            for base in (replicas.url(ADDRESSES[0]), nginx.url)
        )
    assert (through.status_code, through.content) == (status, there.content)
    assert through.headers["content-type"] == "application/problem+json"
    assert through.json()["request_id"] == through.headers["x-request-id"] == "given-1"
    assert nginx.logged() == []


def test_a_full_queue_is_told_as_the_service_tells_it(pair: Pair, tmp_path: Path) -> None:
    room = {"GENREC_MAX_QUEUE_ROWS": str(ROWS), "GENREC_MAX_BATCH_REQUESTS": "1"}
    (tmp_path / "front").mkdir()
    with faulty(pair, tmp_path, **room) as server, front(tmp_path / "front", server.port, ["127.0.0.1"]) as nginx:
        with_id = REQUESTS[0].replace(b"host: x\r\n", b"host: x\r\nx-request-id: given-1\r\n")

        async def one_too_many() -> tuple[Reply, Reply, Reply]:
            through, there = Lines(nginx.port), Lines(server.port)
            server.fault(gated=True)
            first = asyncio.create_task(through.ask(REQUESTS[0]))
            await there.until("genrec_queue_depth", 1)
            refused = await through.ask(with_id), await there.ask(with_id)
            server.fault()
            return *refused, await first

        refusal, expected, answer = run(one_too_many())
        assert (refusal.status, refusal.body) == (429, expected.body)
        assert b"retry-after: 1" in refusal.head.lower()
        assert pair.right(answer, 0)
        assert nginx.logged() == []  # not asked again: the others have no more room than this one


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/%6detrics",
        "//metrics",
        "/x/../metrics",
        "/admin",
        "/admin/bundles",
        "/%61dmin/bundles",
        "/problem",
    ],
)
def test_numbers_and_administration_are_not_to_be_had(nginx: Front, path: str) -> None:
    async def asked() -> Reply:
        return await Lines(nginx.port).get(path)

    reply = run(asked())
    assert (reply.status, reply.json["code"]) == (404, "not_found")


def test_without_a_replica_it_says_what_the_service_would(nginx: Front) -> None:
    nginx.names.addresses = ()
    time.sleep(FORGOTTEN_S)
    reply = httpx.post(f"{nginx.url}/recommend", json=BODY, headers={"x-request-id": "given-1"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
    assert Problem.model_validate_json(reply.content).code == "not_ready"
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "given-1"


OWN_REFUSALS: dict[str, tuple[int, bytes]] = {
    "a body beyond any limit": (413, b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n"),
    "a header line beyond any limit": (431, b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 20_000 + b"\r\n\r\n"),
    "a path beyond any limit": (431, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    "not HTTP": (400, b"hello\r\n\r\n"),
    "two lengths": (400, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}"),
    "an unknown coding": (400, b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n{}"),
    "no host": (400, b"GET /health HTTP/1.1\r\n\r\n"),
    "no method to trust": (405, b"TRACE / HTTP/1.1\r\nhost: x\r\n\r\n"),
}


@pytest.mark.parametrize("case", OWN_REFUSALS)
def test_a_refusal_of_its_own_is_in_the_services_form(nginx: Front, case: str) -> None:
    status, request = OWN_REFUSALS[case]

    async def asked() -> Reply:
        return await Lines(nginx.port).ask(request)

    reply = run(asked())
    assert reply.status == status
    assert b"content-type: application/problem+json" in reply.head.lower()
    problem = Problem.model_validate_json(reply.body)
    assert problem.status == status
    codes = {kind.status: kind.code for kind in KINDS.values() if kind.close} | {405: "method_not_allowed"}
    assert problem.code == codes[status]


def test_wrong_tokens_of_all_clients_count_for_one_peer_and_a_right_one_comes_in(pair: Pair, tmp_path: Path) -> None:
    key = "an-api-key-of-more-than-16"
    (tmp_path / "keys").write_text(f"{key}\n")
    (tmp_path / "front").mkdir()
    keys = {"GENREC_API_KEYS_FILE": str(tmp_path / "keys")}
    with faulty(pair, tmp_path, **keys) as server, front(tmp_path / "front", server.port, ["127.0.0.1"]) as nginx:

        def ask(token: str, peer: str) -> int:
            transport = httpx.HTTPTransport(local_address=peer)
            with httpx.Client(transport=transport, headers={"x-api-key": token}) as client:
                return client.post(f"{nginx.url}/recommend", json=BODY).status_code

        assert [ask("wrong", f"127.0.2.{number}") for number in range(1, 12)] == [401] * 10 + [429]
        assert ask(key, "127.0.2.1") == 200


def test_the_log_has_neither_paths_nor_addresses_of_clients(nginx: Front) -> None:
    nginx.names.addresses = ()
    time.sleep(FORGOTTEN_S)
    httpx.get(f"{nginx.url}/v1/items/secret-item?q=secret-search")
    text = nginx.log.read_text()
    assert [json.loads(line)["status"] for line in text.splitlines()] == [503]
    assert "secret" not in text
    assert "127.0.0.1" not in text


def test_a_long_body_is_asked_again_whole(nginx: Front, replicas: Replicas) -> None:
    nginx.names.addresses = (ADDRESSES[0], "127.0.1.8", "127.0.1.9")  # nobody is at two of them
    time.sleep(FORGOTTEN_S)
    exclude = [f"item-{number:012d}" for number in range(9_000)]
    request = post({"history": HISTORIES[0], "k": K, "exclude": exclude})
    assert 170_000 < len(request) < 250_000

    async def asked() -> list[Reply]:
        lines = Lines(nginx.port)
        return [await lines.ask(request) for _ in range(12)]

    assert {reply.status for reply in run(asked())} == {200}
    assert any(line["statuses"].startswith("502") for line in nginx.logged())


def test_a_replica_that_is_killed_with_requests_in_its_hands_costs_none(
    nginx: Front, replicas: Replicas, pair: Pair
) -> None:
    address = ADDRESSES[0]
    process = replicas.processes[address]

    def kill() -> None:
        process.send_signal(signal.SIGSTOP)  # it takes requests and does nothing with them
        time.sleep(1.0)
        process.kill()
        process.wait(30)
        time.sleep(0.5)

    replies = run(under_load(nginx.port, REQUESTS, RATE, asyncio.to_thread(kill)))
    assert all(pair.right(reply, number % len(REQUESTS)) for number, reply in enumerate(replies))
    in_its_hands = [line for line in nginx.logged() if line["seconds"] > 0.1 and line["statuses"] == "502, 200"]
    assert len(in_its_hands) >= 3
