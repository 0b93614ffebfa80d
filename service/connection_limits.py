"""What connections may take, as the settings say. Knows no protocol."""

from dataclasses import dataclass

from service.settings import Settings

SPARE_CONNECTIONS = 32
"""Beyond the limit, for probes alone: a full service is not to be taken for a dead one."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may take. Seconds.

    Attributes:
        header_timeout_s: from the first byte of a request, or from the connection, to the end of its head.
        receive_timeout_s: from the first byte of a request to its last.
        keep_alive_timeout_s: between an answer and the next request.
        write_timeout_s: how long a reader has for the next 16 KiB of an answer that waits for it.
        max_connections: open at once on a listener; beyond them are `SPARE_CONNECTIONS`.
    """

    header_timeout_s: float
    receive_timeout_s: float
    keep_alive_timeout_s: float
    write_timeout_s: float
    max_connections: int

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimits":
        """As the settings say."""
        return cls(
            header_timeout_s=settings.header_timeout_ms / 1e3,
            receive_timeout_s=settings.receive_timeout_ms / 1e3,
            keep_alive_timeout_s=settings.keep_alive_timeout_ms / 1e3,
            write_timeout_s=settings.write_timeout_ms / 1e3,
            max_connections=settings.max_connections,
        )


def open_files(settings: Settings) -> int:
    """How many files a process needs for as many connections as the settings allow, and for itself."""
    listeners = 1 if settings.admin_address is None else 2
    return listeners * (settings.max_connections + SPARE_CONNECTIONS) + 256
