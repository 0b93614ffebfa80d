"""`genrec serve`: one process, one bundle, one engine, until it is told to stop.

Exit codes: 0 stopped by SIGTERM or Ctrl-C, 65 the bundle or a setting was refused, 70 the engine died or hangs.
"""

import gc
import logging
import math
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn

from genrec.errors import InputError
from genrec.recommender import Recommender
from service.app import create_app
from service.logs import configure_logs
from service.settings import Settings, read_settings

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
    with listen(settings) as listener:
        code = _serve_until_stopped(settings.model_copy(update={"port": listener.getsockname()[1]}), listener)
    if code:
        raise typer.Exit(code)


def listen(settings: Settings) -> socket.socket:
    """A listening socket, taken before anything is loaded.

    Raises:
        InputError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another with --host or --port."
        ) from error


def load_frozen(bundle: Path, *, device: str, dtype: str, engine: str) -> Recommender:
    """The recommender of a bundle, out of sight of the garbage collector.

    PyTorch and a model are some 400,000 objects. The collector walks them all every now and then, 250 ms on the event
    loop's time; frozen they are left alone, and a request that makes it run costs 40 ms at worst.
    """
    recommender = Recommender.load(bundle, device=device, dtype=dtype, engine=engine)
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


def _serve_until_stopped(settings: Settings, listener: socket.socket) -> int:
    configure_logs(settings.log_format)
    ending = _Ending()
    app = create_app(settings, load_frozen, ending)
    ending.server = uvicorn.Server(
        uvicorn.Config(
            app,
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
    log.info("loading", bundle=settings.bundle.name, url=settings.url, device=settings.device)
    ending.server.run(sockets=[listener])
    log.info("stopped", exit_code=ending.code)
    if app.state.service.inference.alive:
        # A thread inside the model cannot be told to end, and Python would not end before it.
        logging.shutdown()
        os._exit(ending.code)
    return ending.code
