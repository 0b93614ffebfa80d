"""Sends requests to a service from a process of its own, with as little work for each as can be.

A bare HTTP/1.1 client on one event loop: on two cores a general one takes more time than the service does. Answers are
kept as bytes and looked at when all are there. `benchmarks.http` starts it: a job as JSON on stdin, results on stdout.
"""

import asyncio
import json
import random
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvloop

PATH = "/v1/recommend"
PATIENCE_S = 30.0
"""For an answer after the last was sent."""


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        url: of the service.
        bodies: JSON texts, drawn at random.
        seconds: how long to send.
        clients: of a closed loop, each sends its next request when it has its answer. None: an open loop.
        rate: of an open loop, requests a second at times drawn beforehand (Poisson).
        kind: bare, or httpx to see what that costs.
        seed: of bodies and times.
    """

    url: str
    bodies: list[str]
    seconds: float
    clients: int | None = None
    rate: float = 0.0
    kind: str = "bare"
    seed: int = 0


@dataclass
class Result:
    """What came back.

    Attributes:
        asked: which body, of each request in the order of answers.
        milliseconds: from when each was to be sent.
        lag_ms: how much later than that each was sent.
        statuses: HTTP statuses, 0 for a connection that was lost or an answer that never came.
        answers: what a 200 said: items, scores, timing_ms; None of any other.
        wall_s: from the first request to the last answer.
        cpu_s: of this process meanwhile.
    """

    asked: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    answers: list[dict[str, Any] | None] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.open = True

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 for a connection that was lost."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or not self.open:
            return 0, b""
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        self._received += data
        head, gap, body = self._received.partition(b"\r\n\r\n")
        if not gap:
            return
        lines = bytes(head).lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(body) >= length and self._answer is not None and not self._answer.done():
            self._received = bytearray()
            self._answer.set_result((int(lines[0].split(b" ", 2)[1]), bytes(body)))
            self.open = b"connection: close" not in lines

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio says."""
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((0, b""))


class Sender:
    """Sends the requests of a job and keeps what came back."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._dice = random.Random(job.seed)
        self._address = urlsplit(job.url)
        self._requests = [self._request(body) for body in job.bodies]
        self._idle: deque[Connection] = deque()
        self._came: list[tuple[int, float, float, int, bytes]] = []

    async def run(self) -> Result:
        """All of it."""
        before, begin = _cpu_s(), time.perf_counter()
        await (self._open_loop() if self._job.clients is None else self._closed_loop(self._job.clients))
        wall_s, cpu_s = time.perf_counter() - begin, _cpu_s() - before
        return _result(self._came, wall_s, cpu_s)

    async def _closed_loop(self, clients: int) -> None:
        end = time.perf_counter() + self._job.seconds

        async def client() -> None:
            while (now := time.perf_counter()) < end:
                await self._send(self._dice.randrange(len(self._requests)), now)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _open_loop(self) -> None:
        begin, due, under_way = time.perf_counter(), 0.0, set[asyncio.Task[None]]()
        while (due := due + self._dice.expovariate(self._job.rate)) < self._job.seconds:
            if (early := begin + due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self._send(self._dice.randrange(len(self._requests)), begin + due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            _, silent = await asyncio.wait(under_way, timeout=PATIENCE_S)
            self._came += [(0, PATIENCE_S, 0.0, 0, b"")] * len(silent)

    async def _send(self, which: int, intended: float) -> None:
        connection = await self._connection()
        sent = time.perf_counter()
        status, body = await connection.ask(self._requests[which])
        self._came.append((which, time.perf_counter() - intended, sent - intended, status, body))
        if connection.open:
            self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Connection, self._address.hostname or "", self._address.port or 80)
        return made

    def _request(self, body: str) -> bytes:
        head = f"POST {PATH} HTTP/1.1\r\nhost: {self._address.netloc}\r\ncontent-type: application/json\r\n"
        encoded = body.encode()
        return f"{head}content-length: {len(encoded)}\r\n\r\n".encode() + encoded


async def with_httpx(job: Job) -> Result:
    """One client of a general library, for what that costs."""
    came: list[tuple[int, float, float, int, bytes]] = []
    async with httpx.AsyncClient(base_url=job.url, headers={"content-type": "application/json"}) as client:
        before, begin = _cpu_s(), time.perf_counter()
        while (sent := time.perf_counter()) < begin + job.seconds:
            which = len(came) % len(job.bodies)
            reply = await client.post(PATH, content=job.bodies[which])
            came.append((which, time.perf_counter() - sent, 0.0, reply.status_code, reply.content))
        return _result(came, time.perf_counter() - begin, _cpu_s() - before)


def _result(came: Sequence[tuple[int, float, float, int, bytes]], wall_s: float, cpu_s: float) -> Result:
    result = Result(wall_s=wall_s, cpu_s=cpu_s)
    for which, taken_s, lag_s, status, body in came:
        result.asked.append(which)
        result.milliseconds.append(taken_s * 1e3)
        result.lag_ms.append(lag_s * 1e3)
        result.statuses.append(status)
        result.answers.append(_read(body) if status == 200 else None)
    return result


def _read(body: bytes) -> dict[str, Any]:
    answer = json.loads(body)
    return {
        "items": [item["item_id"] for item in answer["items"]],
        "scores": [item["score"] for item in answer["items"]],
        "timing_ms": answer["timing_ms"],
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """The process: a job in, a result out."""
    job = Job(**json.load(sys.stdin))
    run: Callable[[], Coroutine[Any, Any, Result]] = Sender(job).run if job.kind == "bare" else lambda: with_httpx(job)
    json.dump(asdict(uvloop.run(run())), sys.stdout)


if __name__ == "__main__":
    main()
