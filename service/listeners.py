"""The sockets of one process, and which application answers on which."""

import resource
import socket

from starlette.types import ASGIApp, Receive, Scope, Send

from genrec.errors import InputError

BACKLOG = 2048
"""Connections that may wait until they are accepted."""


def bind(host: str, port: int, mend: str) -> socket.socket:
    """A socket with its address, taken before anything is loaded; whoever connects before `listen` is refused.

    Args:
        host: address or name.
        port: 0 takes a free one.
        mend: what to change if it cannot be had.

    Raises:
        InputError: the address cannot be had.
    """
    ipv6 = ":" in host
    bound = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the process before may linger
        if ipv6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with {mend}."
        ) from error
    return bound


def listen(bound: socket.socket) -> None:
    """Let clients in.

    Raises:
        InputError: another process that had bound the address too was quicker.
    """
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise InputError(
            f"cannot listen on {host} port {port}: another process has taken it while this one started; choose another."
        ) from error


def port_of(listener: socket.socket) -> int:
    """The port that a socket has, which it may have been given."""
    return int(listener.getsockname()[1])


def allow_open_files(count: int) -> None:
    """Let this process open so many files, sockets among them, if it may not yet.

    Out of files, a process cannot accept a connection to say that it is full, nor open a bundle.

    Raises:
        InputError: the system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise InputError(
            f"the connections that GENREC_MAX_CONNECTIONS allows need {count} open files, but the system gives this "
            f"process {hard}; lower GENREC_MAX_CONNECTIONS, or raise the limit with ulimit -n."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class ByPort:
    """One application behind one port, another behind all the rest.

    The port is the socket's own, which no header can change. One server for all sockets starts and stops as one.
    """

    def __init__(self, main: ASGIApp, admin: ASGIApp, admin_port: int) -> None:
        self.main = main
        self.admin = admin
        self.admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over a request to the application of its port, and the lifespan to the main one."""
        port = (scope.get("server") or ("", None))[1] if scope["type"] == "http" else None
        await (self.admin if port == self.admin_port else self.main)(scope, receive, send)
