"""One replica of the service under Ray Serve: the application that uvicorn serves, and whether it is well.

Ray Serve makes one of these in each replica's process and calls its methods by their names. Imports nothing of Ray, and
knows neither clusters nor deployments.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.recommender import Recommender
from service.app import create_app
from service.errors import NotReady
from service.loading import load_to_serve
from service.logs import configure_logs
from service.settings import Settings, given_settings
from service.state import ServiceState

_UNWELL = ("failed", "suspect")
"""What another replica is better than. One that is stalled is at a long batch; the watchdog ends one that hangs."""


class Replica:
    """The service in one process of Ray's."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        load: Callable[[Path, Settings], Recommender] = load_to_serve,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Nothing is loaded before the application's lifespan begins.

        Args:
            settings: all that differ from their defaults, as plain data; this node's environment is not read.
            load: see `create_app`.
            end: ends the process with an exit code, once the replica was ready and can answer no more.

        Raises:
            InputError: the settings are refused.
        """
        self._settings = given_settings(settings)
        self._load = load
        self._end = end

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called once by Ray Serve, which then runs the application's lifespan."""
        configure_logs(self._settings.log_format, sys.__stderr__)  # Ray Serve makes sys.stderr write to a logger
        app = create_app(self._settings, self._load, self._end_if_ready)
        app.add_middleware(OneRequestId)
        self._state: ServiceState = app.state.service
        return app

    async def check_health(self) -> None:
        """Called by Ray Serve: before the first request, which waits for it, and then every few seconds.

        Raises:
            GenrecError: the bundle was refused, or this replica is to be replaced.
        """
        inference = self._state.inference
        await asyncio.shield(asyncio.wrap_future(inference.loaded))
        if inference.state in _UNWELL:
            raise NotReady(f"The replica is not healthy: {inference.state}.")

    def _end_if_ready(self, code: int) -> None:
        # A process that ends while it loads takes the reason with it; from a health check Ray Serve learns it.
        loaded = self._state.inference.loaded
        if loaded.done() and loaded.exception() is None:
            self._end(code)


class OneRequestId:
    """Leaves the header X-Request-ID of an answer to Ray Serve, which adds one whether there is one or not.

    It is the same id: what the client sent, or else what Ray Serve drew and put into the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but that header."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["X-Request-ID"]
            await send(message)

        await self.app(scope, receive, send_without if scope["type"] == "http" else send)
