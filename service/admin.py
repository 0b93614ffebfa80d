"""The administrators' application: behind a listener and a token of its own, and nowhere else."""

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized
from service.middleware import ObserveRequests, record_of
from service.refusals import install_refusals, refused
from service.routes import admin
from service.state import ServiceState
from service.tokens import Tokens

_SCHEME = b"bearer "


def create_admin_app(state: ServiceState, tokens: Tokens) -> FastAPI:
    """The ASGI application of the admin listener.

    Args:
        state: of the service that is administered.
        tokens: each of them opens all of it.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.service = state
    app.state.turn = CapacityLimiter(1)  # changes wait here, not in a thread each, when the disk is slow
    app.add_middleware(RequireToken, tokens=tokens)
    app.add_middleware(ObserveRequests, metrics=state.metrics)
    for router in (admin.router, admin.changes):
        app.include_router(router)
    install_refusals(app)
    return app


class RequireToken:
    """Lets nothing through without a token, whatever the path: no route can be forgotten, and none is told."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with a token, answer 401 to any other."""
        if scope["type"] != "http" or self.tokens.accept(_presented(scope)):
            await self.app(scope, receive, send)
            return
        error = Unauthorized("Send the header Authorization: Bearer with a token of this service's administrators.")
        await refused(error, record_of(scope))(scope, receive, send)


def _presented(scope: Scope) -> bytes:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1 or not given[0].lower().startswith(_SCHEME):
        return b""
    return bytes(given[0][len(_SCHEME) :]).strip()
