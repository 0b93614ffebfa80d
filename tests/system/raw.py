"""Bytes over a socket, as no client library would send them, and what a server process does about them."""

import json
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n")


@dataclass(frozen=True)
class Exchange:
    """What came back.

    Attributes:
        received: all of it.
        closed: whether the server ended the connection.
        seconds: until then, or until patience ended.
    """

    received: bytes
    closed: bool
    seconds: float

    @property
    def statuses(self) -> list[int]:
        """Of every response, in order."""
        return [int(status) for status in _STATUS.findall(self.received)]

    @property
    def head(self) -> str:
        return self.received.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document of the only response."""
        assert "content-type: application/problem+json" in self.head
        return json.loads(self.received.partition(b"\r\n\r\n")[2])


def connect(port: int, patience_s: float = 10.0) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(patience_s)
    return client


def exchange(port: int, data: bytes | Iterable[bytes], *, patience_s: float = 10.0) -> Exchange:
    """Send, then read until the server closes or patience ends."""
    begin = time.monotonic()
    with connect(port, patience_s) as client:
        try:
            for part in [data] if isinstance(data, bytes) else data:
                client.sendall(part)
        except OSError:
            pass  # the server has heard enough
        received, closed = read_all(client)
    return Exchange(received, closed, time.monotonic() - begin)


def read_all(client: socket.socket) -> tuple[bytes, bool]:
    """Everything until the end, and whether there was one."""
    received = bytearray()
    try:
        while piece := client.recv(65_536):
            received += piece
    except TimeoutError:
        return bytes(received), False
    except ConnectionError:
        return bytes(received), True
    return bytes(received), True


def resident_mib(pid: int) -> float:
    """Memory that a process has in RAM, MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024
