"""What happens around every request: its id, its header limits, its one log line, its counters, its last resort.

Pure ASGI: the framework's own middleware base class hides from a route that its client has gone.
"""

import re
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.errors import EngineError
from service.errors import HeadersTooLarge, problem_response
from service.inference import InferenceThread
from service.metrics import Metrics
from service.schemas import REQUEST_ID_PATTERN
from service.tracing import begin_trace, trace_stages

log = structlog.stdlib.get_logger(__name__)

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024
CLIENT_GONE = 499
"""The status logged for a client that left before its answer; nginx's custom."""

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN.replace("$", r"\Z"))
_SCOPE_KEY = "genrec.record"


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request while it is answered: filled in on the way, written out once at the end.

    Attributes:
        request_id: comes back in header, answer and log.
        started: on the clock of `time.monotonic`, seconds.
        timing_ms: stage -> milliseconds, for `Server-Timing` and the log.
        facts: further fields of the log line: counts and codes, never what the caller sent.
        asked: when the model was asked, on the same clock; None if it was not.
        trace_id: of the trace that it is part of, if any.
    """

    request_id: str
    started: float = field(default_factory=monotonic)
    timing_ms: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    asked: float | None = None
    trace_id: str | None = None

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the request came."""
        return (monotonic() - self.started) * 1e3


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request with this scope."""
    record: RequestRecord = scope[_SCOPE_KEY]
    return record


class ObserveRequests:
    """The outermost layer of ours."""

    def __init__(self, app: ASGIApp, metrics: Metrics, inference: InferenceThread) -> None:
        self.app = app
        self.metrics = metrics
        self.inference = inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and account for it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = scope[_SCOPE_KEY] = RequestRecord(_given_id(scope) or uuid4().hex, trace_id=begin_trace(scope))
        status = CLIENT_GONE
        started = False
        failure: Exception | None = None

        async def send_marked(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                headers = MutableHeaders(scope=message)
                _mark(headers, record)
                if self.inference.state == "draining":  # who comes on is to come by another connection, elsewhere
                    headers["Connection"] = "close"
            await send(message)

        try:
            _check_headers(scope)
            await self.app(scope, receive, send_marked)
        except HeadersTooLarge as error:
            await problem_response(error, record.request_id)(scope, receive, send_marked)
        except ClientDisconnect:
            self.metrics.rejected.labels("disconnected").inc()
        except Exception as error:  # noqa: BLE001  the last frame of ours: a bug becomes a 500 that tells nothing
            failure = error
            if not started:
                await problem_response(EngineError(), record.request_id)(scope, receive, send_marked)
        finally:
            self._account(scope, record, status, failure)

    def _account(self, scope: Scope, record: RequestRecord, status: int, failure: Exception | None) -> None:
        route = getattr(scope.get("route"), "path_format", "unmatched")
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(record.elapsed_ms / 1e3)
        if record.trace_id and record.asked is not None:
            trace_stages(record.asked, record.timing_ms, record.facts)
        write = log.error if status == 500 else log.info
        write(
            "request",
            request_id=record.request_id,
            **({"trace_id": record.trace_id} if record.trace_id else {}),
            method=scope["method"],
            route=route,
            status=status,
            ms=round(record.elapsed_ms, 3),
            **{f"{stage}_ms": round(spent, 3) for stage, spent in record.timing_ms.items()},
            **record.facts,
            **({"exc_info": failure} if failure else {}),
        )


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            return given if _REQUEST_ID.match(given) else None
    return None


def _check_headers(scope: Scope) -> None:
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"Send at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together.")


def _mark(headers: MutableHeaders, record: RequestRecord) -> None:
    headers["X-Request-ID"] = record.request_id
    headers["X-Content-Type-Options"] = "nosniff"
    stages = {**record.timing_ms, "total": record.elapsed_ms}
    headers["Server-Timing"] = ", ".join(f"{stage};dur={spent:.2f}" for stage, spent in stages.items())
