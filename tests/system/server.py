"""A real `genrec serve` process on a free port, for tests that need one."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from tests.system.forked import Forked, genrec

Main = Callable[[Sequence[str]], None]


class Process(Protocol):
    """What a test does to a process; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Begin(Protocol):
    """Starts a server and returns at once."""

    def __call__(self, bundle: Path, *flags: str, log: Path, **environment: str) -> Process: ...


@dataclass(frozen=True)
class Server:
    """A process that is ready.

    Attributes:
        admin_url: of its admin listener, if it has one.
    """

    process: Process
    url: str
    admin_url: str


def begun(bundle: Path, *flags: str, log: Path, **environment: str) -> Process:
    """A server that has just been started, without the seconds that imports take."""
    return begun_as(genrec, bundle, *flags, log=log, **environment)


def begun_as(function: Main, bundle: Path, *flags: str, log: Path, **environment: str) -> Process:
    """The same of a function that is like the command line."""
    return Forked.start(function, _serve(bundle, flags), _environment(environment), log)


def begun_anew(bundle: Path, *flags: str, log: Path, **environment: str) -> Process:
    """The same in an interpreter of its own, which finds what is installed now."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "genrec", *_serve(bundle, flags)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
        )


@contextmanager
def served(bundle: Path, *flags: str, log: Path, begin: Begin = begun) -> Iterator[httpx.Client]:
    """Start a server, wait until it is ready, give a client of it, stop it."""
    with (
        started(bundle, *flags, log=log, begin=begin) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@contextmanager
def started(bundle: Path, *flags: str, log: Path, begin: Begin = begun, **environment: str) -> Iterator[Server]:
    """Start a server with these variables, wait until it is ready, stop it if it still runs."""
    process = begin(bundle, *flags, log=log, **environment)
    try:
        url = _wait_until_ready(process, log)
        admin = re.search(r'"admin_port": ?"(\d+)"', log.read_text())
        yield Server(process, url, f"http://127.0.0.1:{admin[1]}" if admin else "")
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)  # the service gives itself 30
        finally:
            process.kill()


def _wait_until_ready(process: Process, log: Path, patience_s: float = 60) -> str:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        text = log.read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", text)
        if found and '"ready"' in text:
            return found.group()
        if (code := process.poll()) is not None:
            raise RuntimeError(f"the server ended with {code}:\n{text}")
        time.sleep(0.05)
    raise RuntimeError(f"the server was not ready after {patience_s} s:\n{log.read_text()}")


def _serve(bundle: Path, flags: Sequence[str]) -> list[str]:
    return ["serve", "--bundle", str(bundle), "--port", "0", *flags]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    defaults = {"GENREC_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1", "GENREC_DRAIN_DELAY_MS": "0"}
    return {**os.environ, **defaults, **given}


def ask(client: httpx.Client, histories: Sequence[Sequence[str]], answers: Path, **fields: object) -> None:
    """POST every history, write the answers as the oracle reads them."""
    with answers.open("w") as stream:
        for history in histories:
            response = client.post("/recommend", json={"history": list(history), **fields})
            response.raise_for_status()
            stream.write(json.dumps({"items": response.json()["items"]}) + "\n")
