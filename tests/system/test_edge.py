"""A real server against what comes over a socket: smuggling, floods, slow clients, oversized bodies.

After every test the same process answers as before (see the fixture); deadlines are short, see conftest.
"""

import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.system.conftest import (
    GOLDEN,
    HEADER_TIMEOUT_S,
    KEEP_ALIVE_TIMEOUT_S,
    MAX_CONNECTIONS,
    RECEIVE_TIMEOUT_S,
    WRITE_TIMEOUT_S,
)
from tests.system.raw import connect, exchange, read_all, resident_mib

pytestmark = pytest.mark.system

BODY = b'{"history": ["i1"]}'
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
MAX_BODY = 256 * 1024

SMUGGLED = {
    "length, then chunked": POST + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
    "chunked, then length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a list of codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"POST /recommend HTTP/1.0\r\n" + CHUNKED + b"0\r\n\r\n",
    "two lengths": POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "the same length twice": POST + LENGTH * 2 + b"\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: 19, 19\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +19\r\n\r\n" + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": POST + b"Content-Length: 0x13\r\n\r\n" + BODY,
    "a length of 23 digits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "a space before the colon": POST + b"Content-Length : 19\r\n\r\n" + BODY,
    "bare line feeds": b"GET /health HTTP/1.1\nHost: x\n\n",
    "bare carriage returns": b"GET /health HTTP/1.1\rHost: x\r\r",
    "one bare line feed": b"GET /health HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "a space in a name": b"GET /health HTTP/1.1\r\nHost: x\r\nX Y: b\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "an absolute target": b"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n",
    "an @host target": b"GET @x/health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /health#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is not ASCII": "GET /hé HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "the asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 2.0": b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
    "version 9.9": b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 50,
    "no text": b"\0\0\0\0\r\n\r\n",
    "a chunk size that is none": POST + CHUNKED + b"zz\r\n",
    "a negative chunk size": POST + CHUNKED + b"-1\r\n",
    "a chunk size of 17 digits": POST + CHUNKED + b"f" * 17 + b"\r\n",
    "chunks with bare line feeds": POST + CHUNKED + CHUNK.replace(b"\r\n", b"\n") + b"0\n\n",
    "a body with an upgrade": POST + LENGTH + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_two_servers_could_read_in_two_ways_is_400_and_the_end(attacked, name):
    reply = exchange(attacked.port, SMUGGLED[name] + GET + GET)
    assert reply.closed
    assert reply.statuses == [400], "the request behind it is never answered"
    assert reply.problem["code"] == "malformed_request"
    assert "connection: close" in reply.head
    assert "x-content-type-options: nosniff" in reply.head
    assert reply.seconds < 0.5


def test_plain_requests_are_answered_in_order_and_the_connection_kept(attacked):
    chunked = POST + CHUNKED + CHUNK + b"0\r\nX-Request-ID: of-a-trailer\r\n\r\n"
    reply = exchange(attacked.port, GET + POST + LENGTH + b"\r\n" + BODY + chunked + GET)
    assert reply.statuses == [200, 200, 200, 200]
    assert b"of-a-trailer" not in reply.received
    assert reply.closed and reply.seconds >= KEEP_ALIVE_TIMEOUT_S


def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one_and_nothing_follows(attacked):
    upgrade = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    reply = exchange(attacked.port, upgrade + GET)
    assert (reply.statuses, reply.closed) == ([200], True)


def test_what_was_asked_before_a_malformed_request_is_answered_and_then_nothing(attacked):
    reply = exchange(attacked.port, GET + POST + LENGTH + b"\r\n" + BODY + SMUGGLED["two lengths"] + GET)
    assert reply.statuses == [200, 200]
    assert reply.closed


def test_requests_far_ahead_of_their_answers_are_not_collected(attacked):
    reply = exchange(attacked.port, GET * 2_000)
    assert reply.closed
    assert set(reply.statuses) == {200}
    assert len(reply.statuses) < 30


def head_of(size: int) -> bytes:
    """A request of so many bytes."""
    return b"GET /health HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * (size - 38))


FLOODS = {
    "64 KiB and a byte": head_of(65_537),
    "1 MB in a header": head_of(1_000_000),
    "20 MB in a header": head_of(20_000_000),
    "101 headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 100 + b"\r\n",
    "20,000 headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
    "1 MB of name": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X" * 1_000_000,
    "1 MB of target": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "1 MB of query": b"GET /v1/items?q=" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "1 MB of trailer": POST + CHUNKED + CHUNK + b"0\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "20,000 trailers": POST + CHUNKED + CHUNK + b"0\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
    "1 MB of chunk extension": POST + CHUNKED + b"13;" + b"a" * 1_000_000 + b"\r\n" + BODY,
    "a token of 1 MB": b"GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"a" * 1_000_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_before_the_body_is_431_at_once_and_leaves_nothing_in_memory(attacked, name):
    exchange(attacked.port, FLOODS[name])
    before = resident_mib(attacked.pid)
    begin = time.monotonic()
    replies = [exchange(attacked.port, FLOODS[name]) for _ in range(5)]
    assert (time.monotonic() - begin) / 5 < 0.2
    for reply in replies:
        assert reply.closed
        assert reply.statuses == [431]
        assert reply.problem["code"] == "headers_too_large"
    assert resident_mib(attacked.pid) - before < 5


def test_a_head_at_the_limits_is_read(attacked):
    many = b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 99 + b"\r\n"
    assert exchange(attacked.port, head_of(65_536) + many).statuses == [200, 200]


def in_chunks(size: int) -> list[bytes]:
    piece = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    return [POST + CHUNKED, *[piece] * (size // 0x4000), b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ([POST + b"Content-Length: %d\r\n\r\n" % (2 * MAX_BODY), b" " * 2 * MAX_BODY], 413),
        ([POST + b"Content-Length: 10000000000\r\n\r\n", b" " * 2_000_000], 413),
        (in_chunks(2 * MAX_BODY), 413),
        (in_chunks(100 * MAX_BODY), 413),
        ([POST + b"Content-Encoding: gzip\r\n" + CHUNKED, CHUNK, b"0\r\n\r\n"], 415),
        ([POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", gzip.compress(b" " * 10_000_000)], 415),
    ],
    ids=["twice the limit", "10 GB promised", "twice the limit in chunks", "25 MB in chunks", "gzip", "a gzip bomb"],
)
def test_a_body_too_large_is_refused_before_it_is_read(attacked, data, status):
    data = [data[0] % len(data[1]) if b"%d" in data[0] else data[0], *data[1:]]
    exchange(attacked.port, data, patience_s=0.2)
    before = resident_mib(attacked.pid)
    for _ in range(5):
        begin = time.monotonic()
        with connect(attacked.port) as client:
            try:
                for part in data:
                    client.sendall(part)
            except OSError:
                pass
            first = client.recv(65_536)
            assert time.monotonic() - begin < 0.5
            assert first.startswith(b"HTTP/1.1 %d" % status)
    assert resident_mib(attacked.pid) - before < 2 * MAX_BODY / 2**20 + 4


def test_deep_json_a_hundred_times_is_400_and_leaves_nothing_in_memory(attacked):
    bodies = [b"[" * 33, b"[" * 1_000, b'{"a":' * 20_000, b'{"history": ["i1"], "x": ' + b"[" * 200_000]
    with httpx.Client(base_url=attacked.server.url, headers={"content-type": "application/json"}) as client:
        before = 0.0
        for turn in range(105):
            for body in bodies:
                begin = time.monotonic()
                assert client.post("/recommend", content=body).status_code == 400
                assert time.monotonic() - begin < 0.5
            before = before or (resident_mib(attacked.pid) if turn == 4 else 0.0)
    assert resident_mib(attacked.pid) - before < 5


def test_a_slow_head_is_408_and_a_slow_body_too_each_in_its_time(attacked):
    slow_head, slow_body = POST[:20], POST + LENGTH + b"\r\n" + BODY[:5]
    head, body = exchange(attacked.port, slow_head), exchange(attacked.port, slow_body)
    assert head.statuses == body.statuses == [408]
    assert head.problem["code"] == body.problem["code"] == "too_slow"
    assert HEADER_TIMEOUT_S <= head.seconds < HEADER_TIMEOUT_S + 0.6
    assert RECEIVE_TIMEOUT_S <= body.seconds < RECEIVE_TIMEOUT_S + 0.6


def test_a_connection_that_says_nothing_is_closed_without_a_word(attacked):
    silent = exchange(attacked.port, b"")
    assert (silent.received, silent.closed) == (b"", True)
    assert HEADER_TIMEOUT_S <= silent.seconds < HEADER_TIMEOUT_S + 0.6
    blank = exchange(attacked.port, GET + b"\r\n")  # blank lines do not keep a connection either
    assert blank.closed and blank.seconds < KEEP_ALIVE_TIMEOUT_S + 0.6


TRICKLES = [b"", POST[:-2] + b"\r\nX-", POST + b"Content-Length: 200000\r\n\r\n", POST + CHUNKED]


def test_two_hundred_and_forty_slow_clients_disturb_nobody_and_are_all_closed_in_time(attacked):
    alone = timed_requests(attacked.server.url, 40)
    clients = [connect(attacked.port) for _ in range(240)]
    begin = time.monotonic()
    for number, client in enumerate(clients):
        client.sendall(TRICKLES[number % 4])
    stop = threading.Event()
    closed: list[float] = []

    def trickle() -> None:
        left = dict(enumerate(clients))
        while left and not stop.is_set():
            for number, client in list(left.items()):
                try:
                    if number % 4:
                        client.send(b"1\r\n \r\n" if number % 4 == 3 else b"a")
                    client.settimeout(0)
                    while client.recv(4_096):
                        pass
                    raise ConnectionError
                except BlockingIOError:
                    continue
                except OSError:
                    closed.append(time.monotonic() - begin)
                    left.pop(number).close()
            time.sleep(0.05)

    trickler = threading.Thread(target=trickle)
    trickler.start()
    beside = timed_requests(attacked.server.url, 40)
    trickler.join(timeout=RECEIVE_TIMEOUT_S + 3)
    stop.set()
    assert len(closed) == 240
    assert max(closed) < RECEIVE_TIMEOUT_S + 1.5
    assert sorted(beside)[37] < 2 * sorted(alone)[37] + 0.1


def timed_requests(url: str, count: int) -> list[float]:
    """Seconds of good requests, one after the other; all must be answered."""
    spent = []
    with httpx.Client(base_url=url) as client:
        for _ in range(count):
            begin = time.monotonic()
            assert client.post("/recommend", json=GOLDEN).status_code == 200
            spent.append(time.monotonic() - begin)
    return spent


SLOW_READERS = 4


def test_clients_that_do_not_read_their_answers_are_let_go(attacked):
    wanted = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    before = resident_mib(attacked.pid)
    refused = attacked.metric('genrec_connections_refused_total{reason="slow_reader"}')
    clients = []
    for _ in range(SLOW_READERS):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", attacked.port))
        client.settimeout(8)
        clients.append(client)

    def ask_on(client: socket.socket) -> float:
        begin = time.monotonic()
        try:
            while time.monotonic() - begin < 10:
                client.send(wanted)
                time.sleep(0.02)  # ahead of its reading, not of the answers
        except OSError:
            pass
        return time.monotonic() - begin

    with ThreadPoolExecutor(SLOW_READERS) as pool:
        spent = list(pool.map(ask_on, clients))
    for client in clients:
        client.close()
    assert max(spent) < WRITE_TIMEOUT_S + 6
    assert attacked.metric('genrec_connections_refused_total{reason="slow_reader"}') - refused == SLOW_READERS
    assert resident_mib(attacked.pid) - before < 40


def test_a_full_service_answers_probes_and_tells_the_rest_to_come_back(attacked):
    idle = [connect(attacked.port) for _ in range(MAX_CONNECTIONS)]
    try:
        request = POST + LENGTH + b"\r\n" + BODY
        beyond = exchange(attacked.port, request)
        assert (beyond.statuses, beyond.closed) == ([503], True)
        assert beyond.problem["code"] == "too_many_connections"
        assert "retry-after: 1" in beyond.head
        assert exchange(attacked.port, GET).statuses == [200]
        spare = [connect(attacked.port) for _ in range(32)]
        rejected = [exchange(attacked.port, b"") for _ in range(20)]
        assert {(*reply.statuses, reply.closed) for reply in rejected} == {(503, True)}
        assert all(reply.seconds < 0.2 for reply in rejected)
        for client in spare:
            client.close()
    finally:
        for client in idle:
            client.close()
    time.sleep(0.1)
    assert exchange(attacked.port, POST + LENGTH + b"\r\n" + BODY, patience_s=1).statuses == [200]


def test_a_client_that_waits_to_be_told_to_go_on_is_told(attacked):
    with connect(attacked.port) as client:
        client.sendall(POST + LENGTH + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert read_all(client)[0].startswith(b"HTTP/1.1 200")
