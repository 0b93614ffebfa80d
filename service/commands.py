"""`genrec serve`: one process, one bundle, one engine, until it is told to stop.

Exit codes: 0 stopped by SIGTERM or Ctrl-C, 65 the bundle, a setting or what was kept was refused, 70 the engine died or
hangs, 75 another service holds the state directory.
"""

import logging
import math
import os
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn
from starlette.types import ASGIApp

from service.admin import create_admin_app
from service.app import create_app
from service.connection_limits import ConnectionLimits, open_files
from service.draining import DrainingServer
from service.listeners import ByPort, allow_open_files, listen
from service.loading import load_to_serve
from service.logs import configure_logs
from service.protocol import bounded_protocol
from service.ray_deployment import Replicas
from service.serve_ray import serve_on_ray
from service.settings import Settings, read_settings
from service.state import ServiceState

log = structlog.stdlib.get_logger(__name__)

LAST_RESORT_S = 5.0
"""A stop after a failure that takes longer is cut: a hung engine does not listen, and its supervisor waits."""


def serve(
    bundle: Annotated[Path | None, typer.Option(help="The bundle to serve, a directory. [GENREC_BUNDLE]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [GENREC_HOST, 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [GENREC_PORT, 8000]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [GENREC_DEVICE, auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16. [GENREC_DTYPE, auto]")] = None,
    engine: Annotated[str | None, typer.Option(help="auto or an engine's name. [GENREC_ENGINE, auto]")] = None,
    expect_version: Annotated[
        str | None, typer.Option(help="Refuse every other version of a bundle. [GENREC_EXPECT_VERSION]")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Serve with Ray: HOST:PORT of a cluster's head node to deploy there, or local.")
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(help="With --ray, how many: 2, or from 1 to 8 by load: 1-8. [1]")
    ] = None,
) -> None:
    """Serve a bundle over HTTP. Every setting is also a GENREC_* variable; flags win."""
    if replicas is not None and ray is None:
        raise typer.BadParameter(
            "without --ray there is one process; give --ray local for more", param_hint="--replicas"
        )
    settings = read_settings(
        {
            "bundle": bundle, "host": host, "port": port, "device": device, "dtype": dtype, "engine": engine,
            "expect_version": expect_version,
        }
    )  # fmt: skip
    if ray is not None:
        serve_on_ray(settings, ray, Replicas.parse(replicas or "1"))
        return
    with ExitStack() as sockets:
        allow_open_files(open_files(settings))
        listeners = [sockets.enter_context(listen(settings.host, settings.port, "--host or --port"))]
        if settings.admin_address is not None:
            listeners.append(sockets.enter_context(listen(*settings.admin_address, "GENREC_ADMIN_LISTEN")))
        code = _serve_until_stopped(settings.model_copy(update={"port": _port(listeners[0])}), listeners)
    if code:
        raise typer.Exit(code)


class _Ending:
    """How the process ends when the service itself gives up: as a stop would, but not for ever."""

    def __init__(self) -> None:
        self.code = 0
        self.server: uvicorn.Server | None = None

    def __call__(self, code: int) -> None:
        self.code = code
        if self.server is not None:
            self.server.should_exit = True
        last_resort = threading.Timer(LAST_RESORT_S, os._exit, (code,))
        last_resort.daemon = True
        last_resort.start()


def _serve_until_stopped(settings: Settings, listeners: list[socket.socket]) -> int:
    configure_logs(settings.log_format)
    ending = _Ending()
    app = create_app(settings, load_to_serve, ending)
    state: ServiceState = app.state.service
    facts = {"bundle": settings.bundle.name, "url": settings.url, "device": settings.device}
    on_all_sockets: ASGIApp = app
    if (tokens := state.access.admin) is not None:
        admin_port = _port(listeners[1])
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
    for stop in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped: then it is enough
        signal.signal(stop, lambda *_: None)
    log.info("loading", **facts)
    ending.server.run(sockets=listeners)
    log.info("stopped", exit_code=ending.code)
    if state.inference.alive or (state.bundles is not None and state.bundles.under_way):
        # A thread inside the model cannot be told to end, and an interpreter that ends around it may crash.
        logging.shutdown()
        os._exit(ending.code)
    return ending.code


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
