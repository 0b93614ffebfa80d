"""From whatever ends a request to its problem document, for any application of the service."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter
from starlette.exceptions import HTTPException

from genrec.errors import GenrecError
from service.errors import http_exception_response, kind_of, problem_response
from service.middleware import RequestRecord, record_of
from service.validation import refusal

_NO_ANSWER = ("overloaded", "not_ready", "deadline_exceeded", "resource_exhausted", "model_output_invalid")


def install_refusals(app: FastAPI, rejected: Counter | None = None) -> None:
    """Have every error of `app` answered by the one table, and none by the framework.

    Args:
        app: whose errors.
        rejected: counts, by code, POST requests that were right and got no answer all the same.
    """

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, GenrecError)  # noqa: S101  the framework's signature is wider than its promise
        code = kind_of(error).code
        if rejected is not None and code in _NO_ANSWER and request.method == "POST":
            rejected.labels(code).inc()
        return refused(error, record_of(request.scope))

    app.add_exception_handler(GenrecError, refuse)
    app.add_exception_handler(RequestValidationError, _refuse_values)
    app.add_exception_handler(HTTPException, _refuse_path)


def refused(error: GenrecError, record: RequestRecord) -> Response:
    """The reply to a request that ended in `error`; its code, and why if the reply does not say, go into the log."""
    kind = kind_of(error)
    record.facts["code"] = kind.code
    if kind.status >= 500:
        record.facts["reason"] = str(error)
    return problem_response(error, record.request_id)


async def _refuse_values(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return refused(refusal(error.errors(), error.body), record_of(request.scope))


async def _refuse_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return http_exception_response(error, record_of(request.scope).request_id)
