"""The process that serves: one bundle, one engine, on sockets that are open already, until it is told to stop."""

import logging
import math
import os
import signal
import socket
import threading

import structlog
import uvicorn
from starlette.types import ASGIApp

from service.admin import create_admin_app
from service.app import create_app
from service.connection_limits import ConnectionLimits
from service.draining import DrainingServer
from service.listeners import ByPort, port_of
from service.loading import load_to_serve
from service.logs import configure_logs
from service.protocol import bounded_protocol
from service.settings import Settings
from service.state import ServiceState

log = structlog.stdlib.get_logger(__name__)

LAST_RESORT_S = 5.0
"""A stop after a failure that takes longer is cut: a hung engine does not listen, and its supervisor waits."""


class _Ending:
    """How the process ends when the service itself gives up: as a stop would, but not for ever."""

    def __init__(self) -> None:
        self.code = 0
        self.server: uvicorn.Server | None = None

    def told_to_stop(self, *_: object) -> None:
        """A signal that is not uvicorn's."""
        if self.server is not None:
            self.server.should_exit = True

    def __call__(self, code: int) -> None:
        self.code = code
        if self.server is not None:
            self.server.should_exit = True
        last_resort = threading.Timer(LAST_RESORT_S, os._exit, (code,))
        last_resort.daemon = True
        last_resort.start()


def serve_until_stopped(settings: Settings, listeners: list[socket.socket]) -> int:
    """Load, serve, drain.

    Args:
        settings: with the port that was found.
        listeners: the service's socket and, where there is one, that of its administrators.

    Returns:
        The exit code.
    """
    configure_logs(settings.log_format)
    ending = _Ending()
    app = create_app(settings, load_to_serve, ending)
    state: ServiceState = app.state.service
    facts = {"bundle": settings.bundle.name, "url": settings.url, "device": settings.device}
    on_all_sockets: ASGIApp = app
    if (tokens := state.access.admin) is not None:
        admin_port = port_of(listeners[1])
        on_all_sockets = ByPort(app, create_admin_app(state, tokens), admin_port)
        facts["admin_port"] = str(admin_port)
    ending.server = DrainingServer(
        uvicorn.Config(
            on_all_sockets,
            lifespan="on",
            http=bounded_protocol(ConnectionLimits.of(settings), state.metrics.connections_refused),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a header must not choose the peer whose wrong tokens are counted
            timeout_graceful_shutdown=math.ceil(settings.drain_timeout_ms / 1e3),
        ),
        settings.drain_delay_ms / 1e3,
        state.drain,
    )
    # Until uvicorn has its own, and once more when it has stopped, for it raises them again.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, ending.told_to_stop)
    log.info("loading", **facts)
    ending.server.run(sockets=listeners)
    log.info("stopped", exit_code=ending.code)
    if state.inference.alive or (state.bundles is not None and state.bundles.under_way):
        # A thread inside the model cannot be told to end, and an interpreter that ends around it may crash.
        logging.shutdown()
        os._exit(ending.code)
    return ending.code
