"""The one table from an error to its HTTP status, and the problem document it becomes (RFC 9457).

The domain raises `genrec.errors`; what only a server can refuse is added here to the same tree:

GenrecError
├── InputError
│   ├── MalformedRequest   400  not HTTP/1.1 as we read it
│   ├── MalformedBody      400  not the JSON we read
│   ├── Unauthorized       401  no token, or not a right one
│   ├── UnknownItem        404
│   ├── TooSlow            408  the request did not come whole in time
│   ├── BodyTooLarge       413
│   ├── UnsupportedMedia   415
│   └── HeadersTooLarge    431
├── Busy                   409  another change is under way
├── NothingBefore          409  there is no bundle to go back to
├── Overloaded             429  no place in the queue
├── TooManyAttempts        429  wrong tokens, one after the other
├── TooManyConnections     503  as many are open as are kept
├── NotReady               503  loading, stopping, or the engine is gone
├── DeadlineExceeded       504
└── NotStored              507  the disk did not take a change

A problem never repeats what the caller sent, and a 5xx never says why: the reason is in the log under its request id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from genrec.errors import BundleError, GenrecError, InputError, InvalidOutput, OutOfMemory, RequestError
from service.schemas import Problem

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_CHARS = 400


class MalformedRequest(InputError):
    """Not an HTTP request that can be read in one way only."""


class MalformedBody(InputError):
    """The body is not JSON as RFC 8259 and this service want it."""


class Unauthorized(InputError):
    """No token came with the request, or one that opens nothing."""


class UnknownItem(InputError):
    """The catalog has no such item."""


class TooSlow(InputError):
    """The request did not come whole within its time."""


class BodyTooLarge(InputError):
    """The body is longer than `max_body_bytes`."""


class UnsupportedMedia(InputError):
    """The body is compressed, or not declared to be JSON in UTF-8."""


class HeadersTooLarge(InputError):
    """More headers, or more bytes of them, than the service reads."""


class Busy(GenrecError):
    """Another change of the same kind is under way."""


class NothingBefore(GenrecError):
    """No other bundle was served before this one."""


class Overloaded(GenrecError):
    """The queue is full; nothing was computed."""


class TooManyAttempts(GenrecError):
    """Too many wrong tokens came from one peer."""

    def __init__(self, sentence: str, retry_after_s: int = 60) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class TooManyConnections(GenrecError):
    """As many connections are open as the service keeps."""


class NotReady(GenrecError):
    """The service cannot answer now: it loads, stops, or lost its engine."""


class DeadlineExceeded(GenrecError):
    """The request's time ran out before its answer."""


class NotStored(GenrecError):
    """A change could not be written down, so it was not made."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a class of errors looks like over HTTP.

    Attributes:
        status: HTTP status.
        code: stable word for programs.
        detail: a fixed sentence instead of the error's own, None to show its own.
        retry_after_s: seconds for `Retry-After`, None for no such header.
        close: end the connection, because the rest of the request will not be read.
        authenticate: say with `WWW-Authenticate` how to come in.
    """

    status: int
    code: str
    detail: str | None = None
    retry_after_s: int | None = None
    close: bool = False
    authenticate: bool = False


INTERNAL = Kind(500, "internal", "The service could not answer; its log says why under this request id.")

KINDS: Mapping[type[GenrecError], Kind] = {
    RequestError: Kind(422, "invalid_request"),
    MalformedRequest: Kind(400, "malformed_request", close=True),
    MalformedBody: Kind(400, "malformed"),
    Unauthorized: Kind(401, "unauthorized", close=True, authenticate=True),
    UnknownItem: Kind(404, "not_found"),
    TooSlow: Kind(408, "too_slow", close=True),
    BodyTooLarge: Kind(413, "too_large", close=True),
    UnsupportedMedia: Kind(415, "unsupported_media_type"),
    HeadersTooLarge: Kind(431, "headers_too_large", close=True),
    BundleError: Kind(422, "bundle_refused"),
    Busy: Kind(409, "busy"),
    NothingBefore: Kind(409, "nothing_before"),
    Overloaded: Kind(429, "overloaded", retry_after_s=1),
    TooManyAttempts: Kind(429, "too_many_attempts", close=True),
    TooManyConnections: Kind(503, "too_many_connections", retry_after_s=1, close=True),
    NotReady: Kind(503, "not_ready", retry_after_s=2),
    InvalidOutput: Kind(500, "model_output_invalid", "The model gave values that cannot be trusted, so none is sent."),
    OutOfMemory: Kind(503, "resource_exhausted", "There is not enough memory to answer this request.", retry_after_s=1),
    DeadlineExceeded: Kind(504, "deadline_exceeded"),
    NotStored: Kind(507, "not_stored", "The change could not be written to the disk, so nothing was changed."),
}


def kind_of(error: GenrecError) -> Kind:
    """The row of the table for an error; what is not in it is our own failure, a 500."""
    return next((KINDS[base] for base in type(error).__mro__ if base in KINDS), INTERNAL)


def problem_of(error: GenrecError, request_id: str) -> Problem:
    """The problem document of an error."""
    kind = kind_of(error)
    return Problem(
        title=HTTPStatus(kind.status).phrase,
        status=kind.status,
        code=kind.code,
        detail=(kind.detail or str(error))[:MAX_DETAIL_CHARS],
        request_id=request_id,
        pointer=error.pointer if isinstance(error, RequestError) else None,
    )


def problem_response(error: GenrecError, request_id: str) -> Response:
    """The whole reply to a request that ended in `error`."""
    kind = kind_of(error)
    headers = {}
    retry_after_s = error.retry_after_s if isinstance(error, TooManyAttempts) else kind.retry_after_s
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    if kind.close:
        headers["Connection"] = "close"
    if kind.authenticate:
        headers["WWW-Authenticate"] = "Bearer"
    return _render(problem_of(error, request_id), headers)


def http_exception_response(error: HTTPException, request_id: str) -> Response:
    """The reply to what the framework itself refuses: no such path (404), no such method there (405)."""
    sentences = {404: "Nothing is served at this path.", 405: "This path does not take that method."}
    status = HTTPStatus(error.status_code)
    problem = Problem(
        title=status.phrase,
        status=status.value,
        code=status.phrase.lower().replace(" ", "_"),
        detail=sentences.get(status.value, f"{status.phrase}."),
        request_id=request_id,
    )
    return _render(problem, dict(error.headers or {}))


def _render(problem: Problem, headers: dict[str, str]) -> Response:
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
