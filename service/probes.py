"""The two questions that are answered to anyone and always, and the application that answers nothing else."""

from collections.abc import Callable
from uuid import uuid4

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from genrec.errors import GenrecError
from service.errors import TooManyConnections, problem_response

PROBES = frozenset({("GET", "/health"), ("GET", "/ready")})
FULL = "As many connections are open as the service keeps; close some, or come back."


class ProbesOnly:
    """Answers probes, and 503 to the rest, on a connection too many."""

    def __init__(self, app: ASGIApp, count: Callable[[str], None]) -> None:
        self.app = app
        self.count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a probe on, refuse anything else."""
        if (scope["method"], scope["path"]) in PROBES:
            await self.app(scope, receive, send)
            return
        self.count("too_many_connections")
        await early_response(TooManyConnections(FULL))(scope, receive, send)


def early_response(error: GenrecError) -> Response:
    """The reply to a request that ended before any layer of ours had marked it."""
    request_id = uuid4().hex
    response = problem_response(error, request_id)
    response.headers["X-Request-ID"] = request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
