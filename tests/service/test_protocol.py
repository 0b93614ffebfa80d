"""The connection's bounds around a tiny application; what a whole server does about attacks is in tests/system."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Counter

from service.connection_limits import ConnectionLimits, open_files
from service.protocol import bounded_protocol
from tests.service.fakes import some_settings

pytestmark = pytest.mark.anyio

LIMITS = ConnectionLimits(
    header_timeout_s=0.2, receive_timeout_s=0.4, keep_alive_timeout_s=0.2, write_timeout_s=0.3, max_connections=4
)
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LARGE = 32 * 1024 * 1024


@dataclass
class Listening:
    port: int
    refused: Counter
    disconnected: int = 0

    def count(self, reason: str) -> float:
        return self.refused.labels(reason)._value.get()

    async def send(self, data: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(data)
        return reader

    def __post_init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def listening(limits: ConnectionLimits = LIMITS):
    """An application that reads what it is sent; `/large` answers more than a socket takes, `/early` at once."""

    async def app(scope, receive, send):
        body = b""
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                state.disconnected += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        body = b"x" * LARGE if scope["path"] == "/large" else b"%d" % len(body)
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    refused = Counter("refused", "x", ["reason"], registry=CollectorRegistry())
    protocol = bounded_protocol(limits, refused)
    config = uvicorn.Config(app, port=0, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
    state = Listening(server.servers[0].sockets[0].getsockname()[1], refused)
    try:
        yield state
    finally:
        for writer in state.writers:
            writer.transport.abort()
        server.should_exit = True
        await task


def timed(begin: float) -> float:
    return asyncio.get_running_loop().time() - begin


async def test_a_request_in_pieces_is_read_and_its_connection_kept_for_a_while():
    async with listening() as edge:
        reader = await edge.send(POST[:10])
        for piece in (POST[10:], b"Content-Length: 3\r\n\r", b"\na", b"b", b"c" + GET):
            await asyncio.sleep(0.01)
            edge.writers[0].write(piece)
        begin = asyncio.get_running_loop().time()
        replies = await reader.read()
        assert replies.count(b"HTTP/1.1 200") == 2
        assert replies.count(b"\r\n\r\n3") == 1
        assert 0.15 < timed(begin) < 0.5


@pytest.mark.parametrize(
    ("data", "status", "seconds", "reason"),
    [
        (b"", b"", 0.2, "silent"),
        (POST, b"408", 0.2, "slow_head"),
        (POST + b"Content-Length: 5\r\n\r\nab", b"408", 0.4, "slow_body"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"408", 0.4, "slow_body"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nx", b"400", 0, "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400", 0, "malformed"),
        (POST + b"X: " + b"a" * 70_000, b"431", 0, "head_too_large"),
        (POST + b"X: a\r\n" * 101, b"431", 0, "head_too_large"),
    ],
)
async def test_what_does_not_come_as_it_should_ends_the_connection_with_a_reason(data, status, seconds, reason):
    async with listening() as edge:
        begin = asyncio.get_running_loop().time()
        reply = await (await edge.send(data)).read()
        assert seconds <= timed(begin) + 0.01 < seconds + 0.15
        assert reply.split(b" ")[1:2] == ([status] if status else [])
        assert reply.count(b"HTTP/1.1") == bool(status)
        assert edge.count(reason) == 1


async def test_an_application_that_waits_for_a_body_is_told_that_it_does_not_come():
    async with listening() as edge:
        await (await edge.send(POST + b"Content-Length: 5\r\n\r\nab")).read()
        await asyncio.sleep(0.02)
        assert edge.disconnected == 1


async def test_an_answer_before_the_body_is_the_only_one_however_the_body_goes_on():
    for rest in (b"", b"zz\r\n", b"1\r\na\r\n0\r\n\r\n"):
        async with listening() as edge:
            begin = asyncio.get_running_loop().time()
            reader = await edge.send(b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            first = await reader.read(100)
            edge.writers[0].write(rest)
            assert (first + await reader.read()).count(b"HTTP/1.1") == 1
            assert timed(begin) < 0.9


async def test_a_reader_that_stops_is_let_go_and_one_that_reads_is_not():
    async with listening(replace(LIMITS, keep_alive_timeout_s=5)) as edge:
        reader = await edge.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        begin = asyncio.get_running_loop().time()
        while received < LARGE and (piece := await reader.read(2**20)):
            received += len(piece)
            await asyncio.sleep(0.02)
        assert received >= LARGE and timed(begin) > LIMITS.write_timeout_s, "it may take its time, if it goes on"
        assert edge.count("slow_reader") == 0
        await edge.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        edge.writers[-1].transport.pause_reading()
        await asyncio.sleep(0.8)
        assert edge.count("slow_reader") == 1


async def test_beyond_the_limit_only_probes_are_answered_and_far_beyond_it_nothing():
    async with listening(replace(LIMITS, header_timeout_s=5, receive_timeout_s=5)) as edge:
        for _ in range(4):
            await edge.send(b"")
        reply = await (await edge.send(POST + b"Content-Length: 0\r\n\r\n")).read()
        assert reply.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in reply
        assert (await (await edge.send(GET)).read(12)) == b"HTTP/1.1 200"
        for _ in range(31):
            await edge.send(b"")
        await asyncio.sleep(0.05)
        reply = await (await edge.send(GET)).read()
        assert reply.startswith(b"HTTP/1.1 503") and b"too_many_connections" in reply
        assert edge.count("too_many_connections") == 2


def test_there_are_files_for_every_connection_of_every_listener():
    assert open_files(some_settings(max_connections=100)) == 132 + 256
    admin = {"admin_listen": "8001", "admin_token_file": "t", "state_dir": "s"}
    assert open_files(some_settings(max_connections=100, **admin)) == 264 + 256
