import re

import pytest

from service.middleware import MAX_HEADER_BYTES, MAX_HEADERS
from tests.service.fakes import BREAKS, JSON, eventually, send_raw, serving

pytestmark = pytest.mark.anyio

BODY = b'{"history": ["1"]}'
FRESH = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
async def running(logged):
    async with serving() as service:
        await eventually(lambda: any(entry["event"].startswith("try: ") for entry in logged))  # the last of its start
        logged.clear()
        yield service


@pytest.mark.parametrize("request_id", ["a", "A.b_c-9", "x" * 64])
async def test_a_request_id_comes_back_in_header_answer_and_log(running, logged, request_id):
    reply = await send_raw(running.app, BODY, headers=[*JSON, (b"x-request-id", request_id.encode())])
    assert reply.headers["x-request-id"] == reply.json["request_id"] == logged[0]["request_id"] == request_id


@pytest.mark.parametrize(
    "request_id",
    [b"", b"x" * 65, b"a b", b"a\r\nSet-Cookie: x=1", b"a\n", b"%0d%0aX: 1", "é".encode(), b"\xff", b'"><script>'],
)
async def test_a_request_id_that_could_do_harm_is_replaced(running, request_id):
    reply = await send_raw(running.app, BODY, headers=[*JSON, (b"x-request-id", request_id)])
    assert reply.status == 200
    assert FRESH.fullmatch(reply.headers["x-request-id"])
    assert set(reply.headers) == {
        "content-length", "content-type", "x-request-id", "x-content-type-options", "server-timing",
    }  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-filler", b"a" * (MAX_HEADER_BYTES + 1))],
        [(b"x-filler", b"a" * 1_000_000)],
        [(f"x-{number}".encode(), b"a") for number in range(MAX_HEADERS)],
        [(b"x", b"")] * 20_000,
    ],
)
async def test_too_many_or_too_long_headers_are_431_and_the_end_of_the_connection(running, headers):
    reply = await send_raw(running.app, BODY, headers=[*JSON, *headers])
    assert (reply.status, reply.json["code"], reply.headers["connection"]) == (431, "headers_too_large", "close")
    assert running.recommender.computed == 0


async def test_as_many_headers_as_are_allowed_are_read(running):
    fillers = [(f"x-{number}".encode(), b"a" * 500) for number in range(MAX_HEADERS - 1)]
    assert (await send_raw(running.app, BODY, headers=[*JSON, *fillers])).status == 200


async def test_every_reply_says_how_long_it_took_and_is_never_sniffed(running):
    for path in ("/health", "/nope", "/v1/items/7"):
        reply = await running.client.get(path)
        assert re.fullmatch(r"total;dur=\d+\.\d\d", reply.headers["server-timing"])
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "server" not in reply.headers
    reply = await running.recommend("1")
    stages = [stage.split(";")[0] for stage in reply.headers["server-timing"].split(", ")]
    assert stages == ["queue", "encode", "decode", "total"]


async def test_one_event_a_request_with_counts_and_no_content(running, logged):
    canary = "canary-5f1e"
    await running.recommend("1", canary, k=3)
    await running.client.post("/recommend", content=f'{{"{canary}": 1')
    await running.client.get(f"/v1/items/{canary}")
    await running.client.get("/v1/items", params={"q": canary})
    await running.recommend(BREAKS, canary)
    requests = [event for event in logged if event["event"] == "request"]
    assert [(event["route"], event["status"]) for event in requests] == [
        ("/recommend", 200), ("/recommend", 415), ("/v1/items/{item_id}", 404), ("/v1/items", 200), ("/recommend", 500),
    ]  # fmt: skip
    assert requests[0] | {"k": 3, "history_items": 2, "unknown_items": 1, "items": 3} == requests[0]
    assert {"queue_ms", "encode_ms", "decode_ms", "ms", "method"} <= requests[0].keys()
    assert requests[4]["reason"] == "inference failed with RuntimeError."
    assert all(canary not in repr(event) for event in requests)


async def test_a_bug_of_ours_is_a_fixed_500_and_one_error_in_the_log(running, logged, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr("service.routes.recommend.to_answer", broken)
    reply = await running.recommend("1")
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert "secret" not in reply.text
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == logged[0]["request_id"]
    assert [(event["log_level"], type(event["exc_info"])) for event in logged] == [("error", ZeroDivisionError)]
    monkeypatch.undo()
    assert (await running.recommend("1")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nope"), ("POST", "/nope"), ("GET", "/recommend/"), ("GET", "//")]
)
async def test_an_unknown_path_is_a_problem(running, method, path):
    reply = await send_raw(running.app, BODY, method=method, path=path)
    assert (reply.status, reply.json["code"]) == (404, "not_found")
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/recommend", "POST"),
        ("DELETE", "/v1/items/7", "GET"),
        ("POST", "/health", "GET"),
        ("TRACE", "/info", "GET"),
    ],
)
async def test_a_wrong_method_is_a_problem_that_names_the_right_one(running, method, path, allowed):
    reply = await send_raw(running.app, b"", method=method, path=path, headers=[])
    assert (reply.status, reply.json["code"], reply.headers["allow"]) == (405, "method_not_allowed", allowed)
