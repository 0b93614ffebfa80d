"""The sockets of one process, and which application answers on which."""

import resource
import socket

from starlette.types import ASGIApp, Receive, Scope, Send

from genrec.errors import InputError


def listen(host: str, port: int, mend: str) -> socket.socket:
    """A listening socket, taken before anything is loaded.

    Args:
        host: address or name.
        port: 0 takes a free one.
        mend: what to change if it cannot be had.

    Raises:
        InputError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with {mend}."
        ) from error


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
