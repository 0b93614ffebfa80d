"""The administrators' application: behind a listener and a token of its own, and nowhere else."""

from anyio import CapacityLimiter
from fastapi import FastAPI

from service.access import Doors, RequireToken
from service.middleware import ObserveRequests
from service.refusals import install_refusals
from service.routes import admin
from service.state import ServiceState
from service.tokens import TokenFile, Tokens
from service.tracing import TELEMETRY


def create_admin_app(state: ServiceState, tokens: Tokens | TokenFile) -> FastAPI:
    """The ASGI application of the admin listener.

    Args:
        state: of the service that is administered.
        tokens: each of them opens all of it.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, telemetry=TELEMETRY)
    app.state.service = state
    app.state.turn = CapacityLimiter(1)  # changes wait here, not in a thread each, when the disk is slow
    app.add_middleware(RequireToken, doors=Doors(tokens), attempts=state.access.attempts)
    app.add_middleware(ObserveRequests, metrics=state.metrics, inference=state.inference)
    for router in (admin.router, admin.changes):
        app.include_router(router)
    install_refusals(app)
    return app
