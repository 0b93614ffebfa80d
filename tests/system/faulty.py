"""A running `tests.system.faulty_server` with an administrator, and what a test wants to know of it."""

import asyncio
import gc
import json
import signal
import subprocess
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvloop

from tests.system.faulty_server import Faults, serve
from tests.system.pair import HISTORIES, MARKED, REQUESTS, K, Pair
from tests.system.server import Process, begun_as, started
from tests.system.wire import Lines, Reply, hang_up, post

TOKEN = "correct-horse-battery-staple"

T = TypeVar("T")


@dataclass(frozen=True)
class Faulty:
    """A server that is ready, with faults on demand.

    Attributes:
        process: of it.
        port: of the service.
        admin: a client of its administrators.
    """

    process: Process
    port: int
    admin: httpx.Client
    pair: Pair
    file: Path
    log: Path

    def fault(self, **faults: Any) -> None:
        """What goes wrong from the next search on; nothing, without any."""
        Faults(**faults).write(self.file)

    def reload(self, name: str) -> httpx.Response:
        return self.admin.post("/admin/reload", json={"bundle": name})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=10)

    def ask(self, which: int = 0) -> Reply:
        reply = httpx.post(f"{self.url}/recommend", json={"history": HISTORIES[which], "k": K}, timeout=30)
        return Reply(reply.status_code, body=reply.content)

    def metric(self, sample: str) -> float:
        lines = self.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == sample), 0.0)

    def well(self) -> None:
        """It answers as ever, and holds nothing back."""
        assert self.process.poll() is None
        assert self.pair.right(self.ask(), 0)
        assert self.metric("genrec_queue_depth") == 0

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def administered(directory: Path) -> dict[str, str]:
    """The variables of a service with an administrator whose token is TOKEN."""
    (directory / "token").write_text(TOKEN + "\n")
    return {
        "GENREC_STATE_DIR": str(directory / "state"),
        "GENREC_ADMIN_LISTEN": "127.0.0.1:0",
        "GENREC_ADMIN_TOKEN_FILE": str(directory / "token"),
        "FAULTS": str(directory / "faults.json"),
    }


def begun_faulty(bundle: Path, *flags: str, log: Path, **environment: str) -> Process:
    """One that has just been started."""
    return begun_as(serve, bundle, *flags, log=log, **environment)


@contextmanager
def faulty(pair: Pair, directory: Path, *, bundle: str = "a", **environment: str) -> Iterator[Faulty]:
    """Start one, and end it however it is."""
    file, log = directory / "faults.json", directory / "log"
    Faults().write(file)
    variables = administered(directory) | environment
    with started(pair.root / bundle, log=log, begin=begun_faulty, **variables) as server:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=server.admin_url, timeout=120, headers=headers) as admin:
            try:
                yield Faulty(server.process, int(server.url.rpartition(":")[2]), admin, pair, file, log)
            finally:
                Faults().write(file)
                if server.process.poll() is None:
                    try:
                        server.process.send_signal(signal.SIGTERM)
                        server.process.wait(8)
                    except subprocess.TimeoutExpired:
                        server.process.kill()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run clients. Without the collector: a pass over PyTorch's objects takes 250 ms, which a client would measure."""

    async def until_all_hung_up() -> T:
        try:
            return await coroutine
        finally:
            await hang_up()

    gc.disable()
    try:
        return uvloop.run(until_all_hung_up())
    finally:
        gc.enable()


async def behind_the_gate(server: Faulty, lines: Lines, requests: Sequence[bytes]) -> list["asyncio.Task[Reply]"]:
    """Close the gate, have the model hold one request, and these wait behind it, in their order. The first is its."""
    server.fault(gated=True)
    before = await lines.metric("genrec_queue_depth")
    tasks = []
    for number, request in enumerate([REQUESTS[0], *requests]):
        tasks.append(asyncio.create_task(lines.ask(request)))
        if number == 0:
            await lines.until("genrec_queue_depth", before + 1)
            await asyncio.sleep(0.05)  # until the model has taken it
    await lines.until("genrec_queue_depth", before + len(tasks))
    return tasks


async def in_one_batch(server: Faulty, number_marked: int = 3, **faults: Any) -> list[Reply]:
    """Eight requests that the model takes at once under a fault; the history of one of them has the marked item."""
    lines = Lines(server.port)
    try:
        eight = list(REQUESTS[:8])
        eight[number_marked] = post({"history": [MARKED, *HISTORIES[number_marked]], "k": K})
        first, *tasks = await behind_the_gate(server, lines, eight)
        batches = await lines.metric("genrec_batch_size_count")
        server.fault(**faults)
        await first
        replies = list(await asyncio.gather(*tasks))
        assert await lines.metric("genrec_batch_size_count") == batches + 2, "the eight were one batch"
        return replies
    finally:
        lines.close()
