import json

import pytest
from starlette.exceptions import HTTPException

from genrec.errors import (
    BundleError,
    DataError,
    EngineError,
    GenrecError,
    InputError,
    InvalidOutput,
    OutOfMemory,
    RequestError,
    TrainingError,
)
from service import errors
from service.errors import http_exception_response, problem_of, problem_response

STATUSES = {
    RequestError: 422,
    errors.MalformedRequest: 400,
    errors.MalformedBody: 400,
    errors.Unauthorized: 401,
    errors.UnknownItem: 404,
    errors.TooSlow: 408,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.HeadersTooLarge: 431,
    errors.Busy: 409,
    errors.NothingBefore: 409,
    errors.Overloaded: 429,
    errors.TooManyAttempts: 429,
    errors.TooManyConnections: 503,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
    errors.NotStored: 507,
    EngineError: 500,
    BundleError: 422,
    InvalidOutput: 500,
    OutOfMemory: 503,
    DataError: 500,
    InputError: 500,
    TrainingError: 500,
    GenrecError: 500,
}


@pytest.mark.parametrize("kind", STATUSES)
def test_each_error_has_its_status(kind):
    reply = problem_response(kind("x"), "id")
    assert reply.status_code == STATUSES[kind] == json.loads(reply.body)["status"]
    assert reply.headers["content-type"] == "application/problem+json"


def test_every_error_of_the_service_is_in_the_table():
    own = {kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == "service.errors"}
    of_the_domain = {RequestError, BundleError, InvalidOutput, OutOfMemory}
    assert {kind for kind in own if issubclass(kind, GenrecError)} == set(errors.KINDS) - of_the_domain


def test_our_own_failures_do_not_say_why():
    secret = "CUDA error at 0xdeadbeef in /opt/lib"
    for kind in (EngineError, errors.NotStored):
        assert secret not in problem_of(kind(secret), "id").model_dump_json()


def test_overload_and_not_ready_say_when_to_come_back():
    for kind in (errors.Overloaded, errors.NotReady, errors.TooManyAttempts, errors.TooManyConnections):
        assert int(problem_response(kind("x"), "id").headers["retry-after"]) > 0


def test_a_request_that_is_not_read_to_its_end_closes_the_connection():
    for kind in (errors.BodyTooLarge, errors.Unauthorized, errors.TooSlow, errors.MalformedRequest):
        assert problem_response(kind("x"), "id").headers["connection"] == "close"


def test_who_may_not_come_in_is_told_how_to():
    assert problem_response(errors.Unauthorized("x"), "id").headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in problem_response(errors.UnknownItem("x"), "id").headers


def test_the_pointer_is_there_only_where_there_is_one():
    assert problem_of(RequestError("x", "/k"), "id").pointer == "/k"
    assert "pointer" not in json.loads(problem_response(errors.Overloaded("x"), "id").body)


def test_a_long_sentence_is_cut():
    assert len(problem_response(RequestError("x" * 100_000), "id").body) < 2_048


def test_what_the_framework_refuses_is_a_problem_too():
    reply = http_exception_response(HTTPException(405, headers={"Allow": "GET"}), "id")
    assert reply.headers["allow"] == "GET"
    assert json.loads(reply.body)["code"] == "method_not_allowed"
