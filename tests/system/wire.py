"""Many cheap clients on one event loop: requests are bytes made beforehand, replies are looked at when all are there.

On two cores a general client would take more time than the service that is tested.
"""

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Reply:
    """What came of one request.

    Attributes:
        status: of HTTP; 0 if the connection was refused, or ended before the reply did.
        head: status line and headers.
        body: as bytes.
        torn: it ended in the middle of the reply.
        seconds: from when it was to be sent.
    """

    status: int
    head: bytes = b""
    body: bytes = b""
    torn: bool = False
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """The body, refused if it is not JSON to the letter."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} in a reply")

        return json.loads(self.body, parse_constant=refuse)

    @property
    def items(self) -> list[str]:
        return [item["item_id"] for item in self.json["items"]]

    @property
    def version(self) -> str:
        return self.json["bundle"]["version"]


def post(body: object, path: str = "/recommend", key: str = "") -> bytes:
    """A whole request."""
    content = json.dumps(body).encode()
    extra = f"x-api-key: {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._reply: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None
        self.open = True

    @classmethod
    async def to(cls, port: int) -> "Line":
        _, line = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return line

    def send(self, request: bytes) -> "asyncio.Future[Reply]":
        """Send at once; the reply will be in the future, which never fails."""
        self._reply = asyncio.get_running_loop().create_future()
        if self._transport is None or not self.open:
            self._reply.set_result(Reply(0))
        else:
            self._transport.write(request)
        return self._reply

    def leave(self) -> None:
        """Hang up at once."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _CONNECTED.add(self)
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, gap, body = self._received.partition(b"\r\n\r\n")
        if not gap:
            return
        lines = bytes(head).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(body) >= length:
            self._received = bytearray()
            self.open = self.open and b"connection: close" not in lines
            self._settle(Reply(int(lines[0].split(b" ", 2)[1]), bytes(head), bytes(body)))

    def connection_lost(self, exc: Exception | None) -> None:
        _CONNECTED.discard(self)
        self.open = False
        self._settle(Reply(0, torn=bool(self._received)))

    def _settle(self, reply: Reply) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)


_CONNECTED: set[Line] = set()


async def hang_up() -> None:
    """End every connection of this process, before its loop ends."""
    for line in list(_CONNECTED):
        line.leave()
    while _CONNECTED:
        await asyncio.sleep(0)


class Lines:
    """As many connections as are needed, kept open where the service keeps them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[Line] = []

    async def ask(self, request: bytes, intended: float | None = None, leave_after_s: float | None = None) -> Reply:
        """One request; its time counts from when it was to be sent. The client may hang up before the reply."""
        begin = time.perf_counter() if intended is None else intended
        try:
            line = await self._line()
        except OSError:
            return Reply(0, seconds=time.perf_counter() - begin)
        coming = line.send(request)
        if leave_after_s is not None:
            await asyncio.wait([coming], timeout=leave_after_s)
            if not coming.done():
                line.leave()
        reply = await coming
        if line.open:
            self._idle.append(line)
        return Reply(reply.status, reply.head, reply.body, reply.torn, time.perf_counter() - begin)

    async def closed_loop(self, requests: Sequence[bytes], clients: int, seconds: float) -> list[Reply]:
        """So many clients, each asking again as soon as it has its answer."""
        end = time.perf_counter() + seconds
        replies: list[Reply] = []

        async def client(number: int) -> None:
            while time.perf_counter() < end:
                number += 1
                replies.append(await self.ask(requests[number % len(requests)]))

        await asyncio.gather(*map(client, range(clients)))
        return replies

    async def open_loop(self, requests: Sequence[bytes], rate: float, seconds: float) -> list[Reply]:
        """So many requests a second, whatever becomes of them; times count from when each was due.

        Raises:
            TimeoutError: one was not answered long after the last was sent.
        """
        begin, under_way = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            under_way.append(asyncio.create_task(self.ask(requests[number % len(requests)], due)))
        async with asyncio.timeout(PATIENCE_S):
            return list(await asyncio.gather(*under_way))

    async def get(self, path: str) -> Reply:
        return await self.ask(get(path))

    async def metric(self, sample: str) -> float:
        lines = (await self.get("/metrics")).body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == sample), 0.0)

    async def until(self, sample: str, value: float, within_s: float = 10.0) -> None:
        """Wait until a metric has a value."""
        end = time.monotonic() + within_s
        while (now := await self.metric(sample)) != value:
            assert time.monotonic() < end, f"{sample} is {now}, not {value}"
            await asyncio.sleep(0.01)

    def close(self) -> None:
        for line in self._idle:
            line.leave()

    async def _line(self) -> Line:
        while self._idle:
            if (line := self._idle.pop()).open:
                return line
        return await Line.to(self.port)


def p99(replies: Sequence[Reply]) -> float:
    """Seconds."""
    ordered = sorted(reply.seconds for reply in replies)
    return ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]
