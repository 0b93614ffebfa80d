"""POST /v1/score: candidates in, their scores out, under the same care as /recommend."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from genrec.recommender import Recommender
from tests.service.fakes import BREAKS, UNANSWERABLE, eventually, send_raw, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running():
    async with serving() as service:
        yield service


async def test_the_answer_is_the_agreed_document(running):
    reply = await running.client.post(
        "/v1/score",
        json={
            "history": ["1", {"item_id": "2", "event": "rating"}, "nowhere"], "candidates": ["7", "x", "11", "0", "7"],
            "exclude_history": False, "filter": {"include_ids": ["7"]}, "request_id": "mine", "timeout_ms": None,
        },
    )  # fmt: skip
    body = reply.json()
    timing = body.pop("timing_ms")
    assert body == {
        "request_id": "mine",
        "bundle": {"name": "small", "version": "0123456789ab"},
        "items": [
            {"item_id": "7", "score": -1 / 51, "probability": 0.5},
            {"item_id": "0", "score": -0.25, "probability": 0.0},
            {"item_id": "7", "score": -1 / 51, "probability": 0.5},
        ],
        "unknown_candidates": ["x", "11"],
        "catalog_version": 0,
        "history_used": 2,
        "unknown_items": ["nowhere"],
        "truncated": False,
    }  # fmt: skip
    assert (timing["encode"], timing["decode"]) == (0.25, 1.5)
    assert timing["total"] >= timing["queue"] >= 0
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["server-timing"].startswith("queue;dur=")


async def test_an_item_that_is_recommended_has_the_same_score_when_it_is_named(causal_bundle_path: Path):
    recommender = Recommender.load(causal_bundle_path)
    async with serving(load=lambda *_, **__: recommender) as running:
        limits = {"filter": {"where": {"year": {"gte": 1910}}}, "exclude_history": True}
        found = (await running.recommend("i1", "i2", k=20, **limits)).json()["items"]
        named = (await running.score(["i1", "i2"], [item["item_id"] for item in found], **limits)).json()["items"]
    assert len(named) == 20
    for one, other in zip(found, named, strict=True):
        assert other["item_id"] == one["item_id"]
        assert other["score"] == pytest.approx(one["score"], abs=1e-4)
        assert other["probability"] == pytest.approx(one["probability"], abs=1e-5)


@pytest.mark.parametrize("history", [[], ["nowhere"]])
async def test_without_a_known_item_in_the_history_scores_are_null(running, history):
    body = (await running.score(history, ["7", "x"])).json()
    assert body["items"] == [{"item_id": "7", "score": None, "probability": None}]
    assert (body["history_used"], body["unknown_items"], body["unknown_candidates"]) == (0, history, ["x"])


@pytest.mark.parametrize("candidates", [[], ["x"], ["x", "y", "x"]])
async def test_candidates_that_are_all_unknown_are_listed_and_no_error(running, candidates):
    body = (await running.score(["1"], candidates)).json()
    assert (body["items"], body["unknown_candidates"]) == ([], candidates)


async def test_ids_come_back_byte_for_byte(running):
    ids = ["e\u0301", "é🎬", "👩\u200d👩\u200d👧", "films/alien?"]
    body = (await running.score(["1"], ids)).json()
    assert [item["item_id"] for item in body["items"]] == ["é🎬", "films/alien?"]
    assert body["unknown_candidates"] == ["e\u0301", "👩\u200d👩\u200d👧"]


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        ({"candidates": None}, "/candidates", "valid list"),
        ({"candidates": ["1", 2]}, "/candidates/1", "valid string"),
        ({"candidates": ["1", ""]}, "/candidates/1", "at least 1 character"),
        ({"exclude_history": None}, "/exclude_history", "valid boolean"),
        ({"filter": {"where": {"yaer": {"gte": 1990}}}}, "/filter/where", "did you mean year?"),
        ({"canditates": ["1"]}, "", "no such field; did you mean candidates"),
        ({"k": 3}, "", "no such field"),
    ],
)
async def test_what_does_not_fit_is_refused_before_it_is_queued(running, fields, where, said):
    reply = await running.client.post("/v1/score", json={"history": ["1"], "candidates": ["2"], **fields})
    assert (reply.status_code, reply.json()["pointer"]) == (422, where)
    assert said in reply.json()["detail"]
    assert running.recommender.computed == 0


async def test_more_candidates_or_history_than_the_settings_allow_are_refused():
    async with serving(max_candidates=3, max_history_items=2) as running:
        assert (await running.score(["1"] * 2, ["1"] * 3)).status_code == 200
        for history, candidates, where in (
            (["1"], ["1"] * 4, "/candidates"),
            (["1"] * 3, ["1"], "/history"),
            (["1"], ["1"] * 10_001, "/candidates"),
        ):
            reply = await running.score(history, candidates)
            assert (reply.status_code, reply.json()["pointer"]) == (422, where)
        assert (await running.client.get("/info")).json()["limits"]["max_candidates"] == 3


async def test_ten_thousand_candidates_are_one_request(running):
    candidates = [str(number) for number in range(10_000)]
    body = (await running.score(["1"], candidates)).json()
    assert [item["item_id"] for item in body["items"]] == candidates[:10]
    assert body["unknown_candidates"] == candidates[10:]
    assert running.recommender.computed == 1


@pytest.mark.parametrize("poison", [BREAKS, UNANSWERABLE])
async def test_an_inference_error_is_a_500_that_says_nothing_and_the_service_goes_on(running, poison):
    reply = await running.score([poison], ["1"])
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert "deadbeef" not in reply.text
    assert (await running.score(["1"], ["1"])).status_code == 200


async def test_it_stands_in_the_same_queue():
    async with serving(max_queue_rows=2, max_batch_requests=1) as running:
        running.recommender.gate.clear()
        waiting = [
            asyncio.create_task(running.recommend("1")),
            asyncio.create_task(running.score(["1"], ["2"])),
        ]
        await eventually(lambda: running.depth == 2)
        reply = await running.score(["1"], ["2"])
        assert (reply.status_code, reply.json()["code"]) == (429, "overloaded")
        assert reply.headers["retry-after"] == "1"
        running.recommender.gate.set()
        assert [(await one).status_code for one in waiting] == [200, 200]
        assert running.recommender.threads == {"inference"}
        assert await running.metric('genrec_rejected_total{reason="overloaded"}') == 1


async def test_its_deadline_passes_in_the_queue_without_inference(running):
    running.recommender.gate.clear()
    busy = asyncio.create_task(running.score(["1"], ["2"]))
    await eventually(running.recommender.entered.is_set)
    reply = await running.score(["1"], ["2"], timeout_ms=50)
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    running.recommender.gate.set()
    await busy
    assert running.recommender.computed == 1


async def test_a_client_that_leaves_is_never_computed(running):
    running.recommender.gate.clear()
    busy = asyncio.create_task(running.recommend("1"))
    await eventually(running.recommender.entered.is_set)
    leaving = asyncio.create_task(post_and_leave(running))
    await eventually(lambda: running.depth == 1)
    assert await leaving == []
    running.recommender.gate.set()
    await busy
    assert running.recommender.computed == 1
    assert await running.metric('genrec_requests_total{endpoint="/v1/score",status="499"}') == 1


async def post_and_leave(running) -> list[object]:
    """A client that hangs up when its request is in the queue. Returns what was sent to it."""
    body = iter([{"type": "http.request", "body": b'{"history": ["1"], "candidates": ["2"]}', "more_body": False}])
    sent: list[object] = []

    async def receive():
        if (message := next(body, None)) is not None:
            return message
        await eventually(lambda: running.depth == 2)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json")], "client": None, "server": None,
    }  # fmt: skip
    await running.app(scope, receive, send)
    return sent


async def test_its_numbers_are_counted_and_logged(running, logged):
    await running.score(["1", "nowhere"], ["1", "2", "x"])
    assert await running.metric("genrec_candidates_sum") == 3
    assert await running.metric("genrec_history_items_sum") == 2
    assert await running.metric("genrec_unknown_items_total") == 1
    assert await running.metric('genrec_stage_seconds_count{stage="decode"}') == 1
    assert await running.metric('genrec_requests_total{endpoint="/v1/score",status="200"}') == 1
    line = next(event for event in logged if event.get("route") == "/v1/score")
    facts = {"status": 200, "history_items": 2, "unknown_items": 1, "candidates": 3, "items": 2, "decode_ms": 1.5}
    assert line | facts == line


async def test_a_score_that_is_not_finite_never_becomes_broken_json(running, monkeypatch):
    answer = running.recommender.score

    def broken(request):
        given = answer(request)
        return replace(given, items=tuple(replace(item, score=float("nan")) for item in given.items))

    monkeypatch.setattr(running.recommender, "score", broken)
    reply = await send_raw(running.app, json.dumps({"history": ["1"], "candidates": ["2"]}).encode(), path="/v1/score")
    assert reply.status == 200
    assert reply.json["items"][0]["score"] is None
