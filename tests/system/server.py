"""A real `genrec serve` process on a free port, for tests that need one."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Server:
    """A process that is ready.

    Attributes:
        admin_url: of its admin listener, if it has one.
    """

    process: subprocess.Popen[bytes]
    url: str
    admin_url: str


@contextmanager
def served(bundle: Path, *flags: str, log: Path) -> Iterator[httpx.Client]:
    """Start a server, wait until it is ready, give a client of it, stop it."""
    with started(bundle, *flags, log=log) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@contextmanager
def started(bundle: Path, *flags: str, log: Path, module: str = "genrec", **environment: str) -> Iterator[Server]:
    """Start a server with these variables, wait until it is ready, stop it if it still runs."""
    process = begun(bundle, *flags, log=log, module=module, **environment)
    try:
        url = _wait_until_ready(process, log)
        admin = re.search(r'"admin_port": ?"(\d+)"', log.read_text())
        yield Server(process, url, f"http://127.0.0.1:{admin[1]}" if admin else "")
    finally:
        process.terminate()
        process.wait(timeout=30)


def begun(bundle: Path, *flags: str, log: Path, module: str = "genrec", **environment: str) -> subprocess.Popen[bytes]:
    """A server that has just been started: `genrec serve`, or a module that is like it, with faults."""
    command = ["serve"] if module == "genrec" else []
    defaults = {"GENREC_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1", "GENREC_DRAIN_DELAY_MS": "0"}
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", module, *command, "--bundle", str(bundle), "--port", "0", *flags],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **defaults, **environment},
        )


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, patience_s: float = 60) -> str:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        text = log.read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", text)
        if found and '"ready"' in text:
            return found.group()
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{text}")
        time.sleep(0.1)
    raise RuntimeError(f"the server was not ready after {patience_s} s:\n{log.read_text()}")


def ask(client: httpx.Client, histories: Sequence[Sequence[str]], answers: Path, **fields: object) -> None:
    """POST every history, write the answers as the oracle reads them."""
    with answers.open("w") as stream:
        for history in histories:
            response = client.post("/recommend", json={"history": list(history), **fields})
            response.raise_for_status()
            stream.write(json.dumps({"items": response.json()["items"]}) + "\n")
