"""A real nginx with the configuration that is shipped, before replicas that a name server tells it of."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

from tests.system.name_server import NameServer
from tests.system.server import Process, begun
from tests.system.wire import Lines, Reply

CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx/nginx.conf"


@dataclass(frozen=True)
class Front:
    """nginx, listening on 127.0.0.1.

    Attributes:
        names: tells it where replicas are.
        log: one JSON object for each request that not just one replica answered.
    """

    port: int
    names: NameServer
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def front(directory: Path, replica_port: int, addresses: Sequence[str] = ()) -> Iterator[Front]:
    """Start it before replicas on these addresses of one port, and end it."""
    with NameServer(addresses) as names:
        port, log = free_port(), directory / "access.log"
        changes = {  # in this order: what is put in may be below /tmp
            "/tmp/": f"{directory}/",
            "worker_processes auto": "worker_processes 1",  # each remembers names for itself
            "listen 8080": f"listen 127.0.0.1:{port}",
            "service:8000": f"service:{replica_port}",
            "resolver 127.0.0.11 ": f"resolver 127.0.0.1:{names.port} ",
            "/dev/stdout": str(log),
        }
        text = CONFIGURATION.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        if os.geteuid() == 0:  # its workers would become nobody, who cannot read a test's directory
            text = f"user root;\n{text}"
        (directory / "nginx.conf").write_text(text)
        process = subprocess.Popen(["nginx", "-p", directory, "-c", directory / "nginx.conf"])
        try:
            wait_until(lambda: listens(port) or process.poll() is not None)
            yield Front(port, names, log)
        finally:
            process.send_signal(signal.SIGQUIT)
            assert process.wait(30) == 0


@dataclass(frozen=True)
class Replicas:
    """`genrec serve` on one port of several addresses of this machine."""

    bundle: Path
    directory: Path
    port: int
    processes: dict[str, Process] = field(default_factory=dict)

    def all_ready(self, addresses: Sequence[str]) -> None:
        """Start those that do not run, and wait for all."""
        for address in addresses:
            if address not in self.processes or self.processes[address].poll() is not None:
                self.start(address)
        for address in addresses:
            self.wait_until_ready(address)

    def start(self, address: str) -> None:
        """Returns at once."""
        log = self.directory / f"{address}.log"
        flags = ("--host", address, "--port", str(self.port))
        self.processes[address] = begun(self.bundle, *flags, log=log, GENREC_DRAIN_DELAY_MS="500")

    def wait_until_ready(self, address: str) -> None:
        wait_until(lambda: self.ready(address))

    def ready(self, address: str) -> bool:
        assert self.processes[address].poll() is None
        asked = HTTPConnection(address, self.port, timeout=5)
        try:
            asked.request("GET", "/ready")
            return asked.getresponse().status == 200
        except OSError:
            return False
        finally:
            asked.close()

    def url(self, address: str) -> str:
        return f"http://{address}:{self.port}"

    def answered(self, address: str) -> float:
        """How many requests for items it has answered."""
        lines = httpx.get(f"{self.url(address)}/metrics").text.splitlines()
        sample = 'genrec_requests_total{endpoint="/recommend",status="200"} '
        return next((float(line.removeprefix(sample)) for line in lines if line.startswith(sample)), 0.0)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


async def under_load(port: int, requests: Sequence[bytes], rate: float, happening: Awaitable[None]) -> list[Reply]:
    """So many requests a second until `happening` is over; the replies in the order of the requests."""
    lines, under_way = Lines(port), []
    over = asyncio.ensure_future(happening)
    begin = time.perf_counter()
    while not over.done():
        await asyncio.sleep(max(0.0, begin + len(under_way) / rate - time.perf_counter()))
        under_way.append(asyncio.create_task(lines.ask(requests[len(under_way) % len(requests)])))
    await over
    replies = await asyncio.wait_for(asyncio.gather(*under_way), 60)
    lines.close()
    return replies


def wait_until(holds: Callable[[], bool], within_s: float = 240.0) -> None:
    """Patience for machines that do much else."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("", 0)) as listener:
        return int(listener.getsockname()[1])
