"""Both clients: what they send, what they make of replies, when they ask again."""

import asyncio
import inspect
import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import (
    AsyncClient,
    Client,
    RecommendFields,
    Retries,
    ScoreFields,
    ServiceError,
    TimedOut,
    Unavailable,
    asynchronous,
    synchronous,
)
from service.client.retries import Attempts
from service.schemas import MAX_LIST_ITEMS, Problem, RecommendRequest, ScoreRequest
from tests.service.fakes import UNANSWERABLE, serving

ANSWER = {
    "request_id": "r", "bundle": {"name": "b", "version": "v"}, "catalog_version": 0, "history_used": 1,
    "items": [{"rank": 1, "item_id": "7", "score": -1.0, "probability": 0.5, "semantic_id": [1], "source": "model",
               "metadata": {}}],
    "unknown_items": [], "truncated": False, "exact": True,
    "timing_ms": {"queue": 0.1, "encode": 0.2, "decode": 3.0, "total": 4.0},
}  # fmt: skip


def refusal(status: int, code: str, pointer: str | None = None, **headers: str) -> httpx.Response:
    problem = Problem(title="t", status=status, detail="d", code=code, request_id="r1", pointer=pointer)
    return httpx.Response(status, content=problem.model_dump_json(), headers=headers)


class Service:
    """Replies in turn, the last one for ever; an exception is raised in place of a reply."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """How long the clients wait; the time passes at once."""
    waits: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    async def sleep_awaited(seconds: float) -> None:
        sleep(seconds)

    monkeypatch.setattr(synchronous.time, "sleep", sleep)
    monkeypatch.setattr(asynchronous.asyncio, "sleep", sleep_awaited)
    monkeypatch.setattr(Attempts.__init__, "__defaults__", (lambda: now[0], random.Random(0).uniform))
    return waits


@pytest.fixture(params=["sync", "async"])
def asking(request) -> Callable[..., object]:
    """One call of a client of that kind: `asking(service, "recommend", ["1"], timeout_s=…)`."""

    def ask(service, name, *arguments, options=None, **fields):
        options = {"transport": httpx.MockTransport(service), **(options or {})}
        if request.param == "sync":
            with Client("http://test", **options) as client:
                return getattr(client, name)(*arguments, **fields)

        async def awaited():
            async with AsyncClient("http://test", **options) as client:
                return await getattr(client, name)(*arguments, **fields)

        return asyncio.run(awaited())

    return ask


def test_an_answer_is_the_wire_type_and_fields_of_a_newer_service_are_ignored(asking):
    newer = {**ANSWER, "mood": {"new": 1}, "items": [{**ANSWER["items"][0], "novel": True}]}
    answer = asking(Service(httpx.Response(200, json=newer)), "recommend", ["1"])
    assert (answer.items[0].item_id, answer.timing_ms.decode) == ("7", 3.0)


def test_what_is_given_is_what_is_sent(asking):
    service = Service(httpx.Response(200, json=ANSWER))
    history = ["1", {"item_id": "2", "event": "buy"}]
    asking(service, "recommend", history, k=3, filter={"include_ids": ["7"]}, options={"api_key": "s3cret-key"})
    [sent] = service.asked
    assert json.loads(sent.content) == {"history": history, "k": 3, "filter": {"include_ids": ["7"]}}
    assert (sent.headers["authorization"], sent.url.path) == ("Bearer s3cret-key", "/v1/recommend")
    assert "s3cret-key" not in repr(Client("http://test", api_key="s3cret-key").__dict__)


def test_a_refusal_carries_its_problem_and_is_not_asked_again(asking, slept):
    service = Service(refusal(422, "invalid_request", "/k"))
    with pytest.raises(ServiceError, match=r"422 invalid_request: d \(/k\)") as caught:
        asking(service, "recommend", ["1"], k=0)
    error = caught.value
    assert (error.status, error.code, error.pointer, error.request_id) == (422, "invalid_request", "/k", "r1")
    assert type(error) is ServiceError
    assert (len(service.asked), slept) == (1, [])


@pytest.mark.parametrize(("status", "code"), [(400, "malformed"), (401, "unauthorized"), (500, "internal"), (507, "x")])
def test_nothing_but_429_and_503_is_asked_again(asking, slept, status, code):
    service = Service(refusal(status, code, **{"retry-after": "0"}))
    with pytest.raises(ServiceError):
        asking(service, "recommend", ["1"])
    assert (len(service.asked), slept) == (1, [])


def test_a_deadline_that_passed_at_the_service_is_timed_out_and_not_asked_again(asking, slept):
    service = Service(refusal(504, "deadline_exceeded"))
    with pytest.raises(TimedOut) as caught:
        asking(service, "recommend", ["1"], timeout_ms=5)
    assert (caught.value.code, len(service.asked), slept) == ("deadline_exceeded", 1, [])


@pytest.mark.parametrize(
    "failure",
    [
        lambda: refusal(429, "overloaded"), lambda: refusal(503, "not_ready"), lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadError("reset"), lambda: httpx.RemoteProtocolError("Server disconnected."),
    ],
    ids=["429", "503", "refused", "reset", "disconnected"],
)  # fmt: skip
def test_what_cannot_be_answered_now_is_asked_again_until_it_can(asking, slept, failure):
    service = Service(failure(), failure(), httpx.Response(200, json=ANSWER))
    assert asking(service, "recommend", ["1"]).request_id == "r"
    assert (len(service.asked), len(slept)) == (3, 2)
    assert service.asked[0].content == service.asked[2].content


def test_after_the_last_retry_the_reason_is_raised(asking, slept):
    service = Service(refusal(429, "overloaded"))
    with pytest.raises(Unavailable) as caught:
        asking(service, "recommend", ["1"], options={"retries": 2})
    assert (caught.value.code, len(service.asked)) == ("overloaded", 3)
    service = Service(httpx.ConnectError("refused"))
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        asking(service, "info", options={"retries": 0})
    assert (caught.value.problem, caught.value.status, len(service.asked)) == (None, None, 1)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_retry_after_is_never_undercut(asking, slept):
    service = Service(refusal(429, "overloaded", **{"retry-after": "2"}), httpx.Response(200, json=ANSWER))
    asking(service, "recommend", ["1"], options={"retries": Retries(3, base_s=0.5)})
    assert 2.0 <= slept[0] <= 2.5


def test_retry_after_may_be_a_date(asking, slept):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)
    service = Service(refusal(503, "not_ready", **{"retry-after": when}), httpx.Response(200, json=ANSWER))
    asking(service, "recommend", ["1"])
    assert 8.0 <= slept[0] <= 10.2


@pytest.mark.parametrize("given", ["", "soon", "-3", "1e9", "nan", "²", "Wed, 99 Foo 2026 00:00:00 GMT", "1, 2"])
def test_a_retry_after_that_says_nothing_is_no_reason_to_fail(asking, slept, given):
    reply = httpx.Response(429, headers=[(b"retry-after", given.encode("latin-1"))])
    service = Service(reply, httpx.Response(200, json=ANSWER))
    asking(service, "recommend", ["1"])
    assert 0.0 <= slept[0] <= 0.1


def test_a_wait_that_would_end_after_the_deadline_is_not_begun(asking, slept):
    service = Service(refusal(429, "overloaded", **{"retry-after": "5"}))
    with pytest.raises(Unavailable):
        asking(service, "recommend", ["1"], options={"timeout_s": 5.0})
    assert (len(service.asked), slept) == (1, [])


@given(
    asked=st.lists(st.none() | st.floats(0, 100), max_size=12),
    timeout_s=st.floats(0, 60),
    took=st.floats(0, 20),
    retries=st.builds(Retries, st.integers(0, 10), st.floats(0, 10), st.floats(0, 10)),
    seed=st.integers(0, 1_000),
)
def test_waits_end_before_the_deadline_undercut_no_retry_after_and_stay_below_the_cap(
    asked, timeout_s, took, retries, seed
):
    now = [100.0]
    attempts = Attempts(retries, timeout_s, lambda: now[0], random.Random(seed).uniform)
    waits = 0
    for retry_after_s in asked:
        now[0] += took
        wait_s = attempts.wait_s(retry_after_s)
        if wait_s is None:
            break
        waits += 1
        assert (retry_after_s or 0) <= wait_s <= (retry_after_s or 0) + retries.cap_s + 1e-9
        now[0] += wait_s
        assert now[0] <= 100.0 + timeout_s + 1e-9
    assert waits <= retries.times


def test_waits_are_spread_over_the_whole_bound_which_doubles():
    for retry in range(3):
        drawn = []
        for seed in range(200):
            attempts = Attempts(Retries(3, 1.0, 100.0), 1e6, lambda: 0.0, random.Random(seed).uniform)
            drawn.append([attempts.wait_s() for _ in range(3)][retry])
        assert 0 < min(drawn) < 0.1 * 2**retry
        assert 0.9 * 2**retry < max(drawn) <= 2**retry


@pytest.mark.parametrize("numbers", [(-1,), (1, -0.1), (1, 0.1, -1)])
def test_a_negative_number_of_retries_is_refused(numbers):
    with pytest.raises(ValueError, match="negative"):
        Retries(*numbers)


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b'{"status": "x"}', b"\xff"])
def test_a_reply_of_something_in_between_is_still_a_service_error(asking, body):
    with pytest.raises(ServiceError) as caught:
        asking(Service(httpx.Response(502, content=body)), "recommend", ["1"])
    assert (caught.value.status, caught.value.code) == (502, "no_problem_document")
    with pytest.raises(ServiceError, match="what is no RecommendAnswer"):
        asking(Service(httpx.Response(200, content=body)), "recommend", ["1"])


def test_a_service_that_says_nothing_is_timed_out():
    async def silent(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def ask() -> None:
        async with AsyncClient("http://test", timeout_s=0.02, transport=httpx.MockTransport(silent)) as client:
            await client.recommend(["1"])

    with pytest.raises(TimedOut):
        asyncio.run(ask())


def test_a_blocking_client_gives_each_step_what_is_left_of_its_time(slept):
    service = Service(refusal(503, "not_ready", **{"retry-after": "2"}), httpx.ReadTimeout("slow"))
    with (
        pytest.raises(TimedOut),
        Client("http://test", timeout_s=5.0, transport=httpx.MockTransport(service)) as client,
    ):
        client.recommend(["1"])
    first, second = (request.extensions["timeout"]["read"] for request in service.asked)
    assert first == 5.0
    assert second == pytest.approx(5.0 - slept[0])


def test_probes_are_true_or_false_and_never_asked_again(asking, slept):
    ok = httpx.Response(200, json={"status": "ok"})
    for reply, said in ((ok, True), (refusal(503, "not_ready"), False), (httpx.ConnectError("refused"), False)):
        for probe in ("health", "ready"):
            service = Service(reply)
            assert asking(service, probe) is said
            assert len(service.asked) == 1
    assert slept == []


def test_waiting_for_a_service_that_loads_ends_when_it_is_ready(asking, slept):
    loading = refusal(503, "not_ready")
    service = Service(httpx.ConnectError("refused"), *[loading] * 20, httpx.Response(200, json={"status": "ready"}))
    asking(service, "wait_until_ready")
    assert len(slept) == 21


def test_waiting_for_a_service_that_never_is_ready_says_why(asking, slept):
    with pytest.raises(TimedOut, match=r"not ready after 2 s: 503 not_ready: d") as caught:
        asking(Service(refusal(503, "not_ready")), "wait_until_ready", 2.0)
    assert caught.value.code == "not_ready"
    assert sum(slept) <= 2.0


def public(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in vars(client).items()
        if not name.startswith("_") and inspect.isfunction(method)
    }


def test_both_clients_have_the_same_face():
    assert public(Client) == public(AsyncClient)
    arguments = [list(inspect.signature(client).parameters) for client in (Client, AsyncClient)]
    assert arguments[0] == arguments[1]


def test_every_field_of_a_request_can_be_given():
    assert set(RecommendFields.__annotations__) == set(RecommendRequest.model_fields) - {"history"}
    assert set(ScoreFields.__annotations__) == set(ScoreRequest.model_fields) - {"history", "candidates"}


@pytest.mark.anyio
async def test_the_client_covers_every_operation_but_probes_and_what_it_reads_is_what_is_sent():
    sent: list[tuple[str, str]] = []

    async def note(request: httpx.Request) -> None:
        sent.append((request.method, request.url.path))

    async with serving() as running:
        client = AsyncClient("http://test", retries=0, transport=httpx.ASGITransport(running.app))
        client._http.event_hooks = {"request": [note]}
        async with client:
            assert (await client.recommend(["1", "nope"], k=2)).unknown_items == ["nope"]
            batch = await client.recommend_batch(
                [{"history": ["1"]}, {"history": [UNANSWERABLE]}, {"history": [], "k": 0}]
            )
            assert [type(one).__name__ for one in batch.results] == ["RecommendAnswer", "Problem", "Problem"]
            assert (await client.score(["1"], ["7", "nope"])).unknown_candidates == ["nope"]
            assert (await client.items("star", limit=2)).total >= 3
            for item_id in ("7", "films/alien?", "é🎬"):
                assert (await client.item(item_id)).item_id == item_id
                assert (await client.similar(item_id, limit=1)).items[0].shared_levels >= 0
            assert (await client.tree()).total == 3
            assert (await client.tree([0, 1])).prefix == [0, 1]
            assert (await client.bundle()).bundle.name == "small"
            assert (await client.info()).bundle.name == "small"
            assert await client.health()
            assert await client.ready()
            with pytest.raises(ServiceError) as caught:
                await client.recommend(["1"] * (MAX_LIST_ITEMS + 1))
            assert (caught.value.status, caught.value.pointer) == (422, "/history")
        operations = [
            (method.upper(), path)
            for path, methods in running.app.openapi()["paths"].items()
            for method in methods
            if path not in ("/metrics", "/recommend")  # the latter is /v1/recommend
        ]
    missing = [
        f"{method} {path}"
        for method, path in operations
        if not any(verb == method and re.fullmatch(re.sub(r"\{\w+\}", ".+", path), asked) for verb, asked in sent)
    ]
    assert not missing
