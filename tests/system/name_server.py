"""A name server on loopback: every name has the addresses that a test gives it, as Docker's gives those of replicas."""

import socketserver
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

TTL_S = 600
"""As Docker's says: who believes it would not see a replica come or go for ten minutes."""


class NameServer(socketserver.UDPServer):
    """Answers A queries, any name alike; NXDOMAIN while there is no address.

    Attributes:
        addresses: IPv4, given from the next query on.
        asked: how many queries came.
    """

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Query)
        self.addresses = addresses
        self.asked = 0
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Query(socketserver.BaseRequestHandler):
    server: NameServer

    def handle(self) -> None:
        data, socket = self.request
        self.server.asked += 1
        addresses = self.server.addresses
        end = data.index(b"\0", 12) + 5  # the name, its type and its class (RFC 1035, 4.1.2)
        flags = 0x8180 if addresses else 0x8183
        head = data[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
        answers = [
            struct.pack("!HHHIH", 0xC00C, 1, 1, TTL_S, 4) + bytes(map(int, address.split("."))) for address in addresses
        ]
        socket.sendto(b"".join([head, data[12:end], *answers]), self.client_address)
