"""`genrec serve`: one process, one bundle, one engine, until it is told to stop.

Exit codes: 0 stopped by SIGTERM or Ctrl-C, 65 the bundle, a setting or what was kept was refused, 70 the engine died or
hangs, 75 another service holds the state directory.
"""

import gc
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

from genrec.recommender import Recommender
from service.admin import create_admin_app
from service.app import create_app
from service.listeners import ByPort, listen
from service.logs import configure_logs
from service.settings import Settings, read_settings
from service.tokens import Tokens

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
) -> None:
    """Serve a bundle over HTTP. Every setting is also a GENREC_* variable; flags win."""
    flags = {"bundle": bundle, "host": host, "port": port, "device": device, "dtype": dtype, "engine": engine}
    settings = read_settings(flags)
    with ExitStack() as sockets:
        listeners = [sockets.enter_context(listen(settings.host, settings.port, "--host or --port"))]
        if settings.admin_address is not None:
            listeners.append(sockets.enter_context(listen(*settings.admin_address, "GENREC_ADMIN_LISTEN")))
        code = _serve_until_stopped(settings.model_copy(update={"port": _port(listeners[0])}), listeners)
    if code:
        raise typer.Exit(code)


def load_frozen(bundle: Path, *, device: str, dtype: str, engine: str, max_proof_beams: int) -> Recommender:
    """The recommender of a bundle, out of sight of the garbage collector.

    PyTorch and a model are some 400,000 objects. The collector walks them all every now and then, 250 ms on the event
    loop's time; frozen they are left alone, and a request that makes it run costs 40 ms at worst.
    """
    recommender = Recommender.load(bundle, device=device, dtype=dtype, engine=engine, max_proof_beams=max_proof_beams)
    gc.collect()
    gc.freeze()
    return recommender


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
    tokens = Tokens.read(settings.admin_token_file) if settings.admin_token_file else None
    configure_logs(settings.log_format)
    ending = _Ending()
    app = create_app(settings, load_frozen, ending)
    facts = {"bundle": settings.bundle.name, "url": settings.url, "device": settings.device}
    on_all_sockets: ASGIApp = app
    if tokens is not None:
        admin_port = _port(listeners[1])
        on_all_sockets = ByPort(app, create_admin_app(app.state.service, tokens), admin_port)
        facts["admin_port"] = str(admin_port)
    ending.server = uvicorn.Server(
        uvicorn.Config(
            on_all_sockets,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.drain_timeout_ms / 1e3),
        )
    )
    for stop in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped: then it is enough
        signal.signal(stop, lambda *_: None)
    log.info("loading", **facts)
    ending.server.run(sockets=listeners)
    log.info("stopped", exit_code=ending.code)
    if app.state.service.inference.alive:
        # A thread inside the model cannot be told to end, and Python would not end before it.
        logging.shutdown()
        os._exit(ending.code)
    return ending.code


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
