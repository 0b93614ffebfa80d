import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from genrec.recommender import Recommender
from tests.service.fakes import (
    BREAKS,
    MAX_K,
    UNANSWERABLE,
    eventually,
    send_raw,
    serving,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running():
    async with serving() as service:
        yield service


async def test_the_answer_is_the_agreed_document(running):
    reply = await running.client.post(
        "/recommend",
        json={
            "history": ["1", {"item_id": "2", "event": "rating"}, "nowhere"], "k": 2, "exclude_history": True,
            "exclude": ["7"], "fields": ["title"], "num_beams": None, "fallback": "popular", "request_id": "mine",
            "timeout_ms": None,
        },
    )  # fmt: skip
    body = reply.json()
    timing = body.pop("timing_ms")
    assert body == {
        "request_id": "mine",
        "bundle": {"name": "small", "version": "0123456789ab"},
        "items": [
            {
                "rank": 1, "item_id": "9", "score": -0.5, "probability": 1.0, "semantic_id": [2, 0, 1],
                "source": "model", "metadata": {"title": "Ran"},
            },
            {
                "rank": 2, "item_id": "films/alien?", "score": -1.5, "probability": 0.5, "semantic_id": [2, 1, 0],
                "source": "model", "metadata": {"title": "Alien Director's Cut"},
            },
        ],
        "catalog_version": 0,
        "history_used": 2,
        "unknown_items": ["nowhere"],
        "truncated": False,
        "exact": True,
        "explain": None,
    }  # fmt: skip
    assert (timing["encode"], timing["decode"]) == (0.25, 1.5)
    assert timing["total"] >= timing["queue"] >= 0
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["server-timing"].startswith("queue;dur=")


async def test_a_proven_answer_is_asked_for_by_its_field_and_within_the_services_budget(causal_bundle_path: Path):
    recommender = Recommender.load(causal_bundle_path)
    async with serving(load=lambda *_, **__: recommender) as running:
        histories = [[f"i{number}"] for number in range(10)]
        plain = [(await running.recommend(*history, k=3, num_beams=3)).json() for history in histories]
        proven = [
            (await running.recommend(*history, k=3, num_beams=3, prove_exact=True)).json() for history in histories
        ]
        assert False in {answer["exact"] for answer in plain}
        assert {answer["exact"] for answer in proven} == {True}
        scores = [(await running.score(history, [f"i{row}" for row in range(40)])).json() for history in histories]
        for history, answer, scored in zip(histories, proven, scores, strict=True):
            best = sorted(scored["items"], key=lambda item: -item["score"])
            best = [item["item_id"] for item in best if item["item_id"] not in history]
            assert [item["item_id"] for item in answer["items"]] == best[:3]
    async with serving(load=lambda *_, **__: replace(recommender, max_proof_beams=0)) as running:
        reply = await running.recommend("i1", prove_exact=True)
        assert (reply.status_code, reply.json()["pointer"]) == (422, "/prove_exact")
        assert (await running.client.get("/info")).json()["limits"]["max_proof_beams"] == 0


async def test_an_explained_answer_is_the_same_answer_with_its_search(causal_bundle_path: Path):
    recommender = Recommender.load(causal_bundle_path)
    asked = {"k": 4, "filter": {"where": {"year": {"gte": 1910}}}, "exclude": ["i7"], "request_id": "x"}
    async with serving(load=lambda *_, **__: recommender) as running:
        plain = (await running.recommend("i1", "i2", **asked)).json()
        told = (await running.recommend("i1", "i2", **asked, explain=True)).json()
        levels = told["explain"]["levels"]
        assert plain.pop("explain") is None
        assert told.keys() - plain.keys() == {"explain"}
        assert told["items"] == [
            item | {"probability": pytest.approx(item["probability"], rel=1e-5)} for item in plain["items"]
        ]
        assert (told["exact"], told["catalog_version"]) == (plain["exact"], plain["catalog_version"])
        assert [level["level"] for level in levels] == [0, 1, 2]
        assert set(levels[0]) == {"level", "kept", "pruned", "pruned_total", "closed", "closed_total", "mass"}
        assert set(levels[0]["kept"][0]) == {"semantic_id", "log_prob", "items"}
        assert set(levels[0]["mass"]) == {"allowed", "closed_by_filter", "closed_by_trie"}
        leaves = [(leaf["semantic_id"], leaf["log_prob"] / 3) for leaf in levels[2]["kept"][:4]]
        assert leaves == [(item["semantic_id"], item["score"]) for item in told["items"]]
        for history in ([], ["nowhere"]):
            assert (await running.recommend(*history, explain=True)).json()["explain"] is None
        assert (await running.recommend("i1", explain=1)).status_code == 422
    async with serving(load=lambda *_, **__: replace(recommender, engine=_Broken())) as running:
        reply = await running.recommend("i1", explain=True)
        assert (reply.status_code, reply.json()["code"]) == (500, "internal")


class _Broken:
    """An engine that can be asked for nothing."""

    name = "broken"


async def test_a_batch_is_not_explained_and_says_where_to_ask(running):
    requests = [{"history": ["1"], "explain": True}, {"history": ["1"], "explain": False}]
    reply = await running.client.post("/v1/recommend/batch", json={"requests": requests})
    refused, answered = reply.json()["results"]
    assert (refused["status"], refused["pointer"]) == (422, "/explain")
    assert "/recommend" in refused["detail"]
    assert len(answered["items"]) == 10


async def test_both_paths_answer_the_same(running):
    bodies = [
        (await running.client.post(path, json={"history": ["1"], "request_id": "x"})).json()
        for path in ("/recommend", "/v1/recommend")
    ]
    for body in bodies:
        del body["timing_ms"]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("history", [[], ["nowhere"]])
async def test_without_a_known_item_popular_ones_come_without_scores(running, history):
    body = (await running.recommend(*history, k=1)).json()
    assert body["items"][0] | {"metadata": {}} == {
        "rank": 1, "item_id": "7", "score": None, "probability": None, "semantic_id": [1, 1, 1],
        "source": "popular", "metadata": {},
    }  # fmt: skip
    assert body["exact"] is None
    assert (await running.recommend(*history, fallback="none")).json()["items"] == []


@pytest.mark.parametrize(
    ("fields", "columns"), [(None, {"title", "year", "genres"}), ([], set()), (["year"], {"year"})]
)
async def test_fields_choose_the_metadata(running, fields, columns):
    body = (await running.recommend("1", fields=fields)).json()
    assert {frozenset(item["metadata"]) for item in body["items"]} == {frozenset(columns)}


async def test_an_unknown_column_is_refused_with_its_place(running):
    reply = await running.recommend("1", fields=["title", "tilte"])
    assert (reply.status_code, reply.json()["pointer"]) == (422, "/fields/1")
    assert "tilte" not in reply.text


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        (None, {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "films/alien?", "é🎬"}),
        ({}, {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "films/alien?", "é🎬"}),
        ({"include_ids": ["7", "é🎬", "nowhere"], "where": None}, {"7", "é🎬"}),
        ({"include_ids": []}, set()),
        ({"where": {"year": {"gte": 1986}}}, {"9", "films/alien?", "é🎬"}),
        ({"include_ids": ["1", "9"], "where": {"year": {"gte": 1986}}}, {"9"}),
        ({"where": {"not": {"title": {"gte": "B"}}}}, {"4", "5", "films/alien?", "é🎬"}),
        ({"where": {"genres": {"none_of": ["Drama"]}}}, set()),
    ],
)
async def test_a_filter_says_which_items_may_be_answered(running, asked, ids):
    body = (await running.recommend("1", k=20, exclude_history=False, filter=asked)).json()
    assert {item["item_id"] for item in body["items"]} == ids


@pytest.mark.parametrize(
    ("asked", "where", "said"),
    [
        ({"where": {"yaer": {"gte": 1990}}}, "/filter/where", "no such column; did you mean year?"),
        ({"where": {"year": {"get": 1990}}}, "/filter/where/year", "no such operator; did you mean gte?"),
        ({"where": {"not": {"year": {"gte": "x"}}}}, "/filter/where/not/year/gte", "takes an integer"),
        ({"include_ids": [1]}, "/filter/include_ids/0", "valid string"),
        ({"include": ["1"]}, "/filter", "no such field; did you mean include_ids"),
    ],
)
async def test_a_filter_that_does_not_fit_is_refused_before_it_is_queued(running, asked, where, said):
    reply = await running.recommend("1", filter=asked)
    assert (reply.status_code, reply.json()["pointer"]) == (422, where)
    assert said in reply.json()["detail"]
    batch = await running.client.post("/v1/recommend/batch", json={"requests": [{"history": ["1"], "filter": asked}]})
    assert [result["pointer"] for result in batch.json()["results"]] == [where]
    assert running.recommender.computed == 0


@pytest.mark.parametrize(
    ("fields", "where"),
    [({"k": MAX_K + 1}, "/k"), ({"num_beams": 9, "k": 10}, "/num_beams"), ({"num_beams": 10_000}, "/num_beams")],
)
async def test_what_the_bundle_does_not_allow_is_refused_before_it_is_queued(running, fields, where):
    reply = await running.recommend("1", **fields)
    assert (reply.status_code, reply.json()["pointer"]) == (422, where)
    assert running.recommender.computed == 0


async def test_a_history_over_the_hard_cap_is_refused_and_one_at_the_cap_is_not():
    async with serving(max_history_items=8) as running:
        assert (await running.recommend(*["1"] * 8)).json()["truncated"] is True
        reply = await running.recommend(*["1"] * 9)
        assert (reply.status_code, reply.json()["pointer"]) == (422, "/history")


async def test_ids_come_back_byte_for_byte(running):
    ids = ["e\u0301", "é", "👩\u200d👩\u200d👧", "مرحبا"]
    assert (await running.recommend(*ids)).json()["unknown_items"] == ids


async def test_a_history_keeps_its_duplicates_and_an_answer_has_none(running):
    body = (await running.recommend("1", "1", exclude_history=False, k=20)).json()
    assert list(running.recommender.asked[0][0].history) == ["1", "1"]
    ids = [item["item_id"] for item in body["items"]]
    assert len(ids) == len(set(ids)) == 12


async def test_excluding_everything_answers_with_less_and_counts_it(running):
    ids = [item["item_id"] for item in (await running.client.get("/v1/items?limit=100")).json()["items"]]
    assert (await running.recommend("1", exclude=ids)).json()["items"] == []
    assert await running.metric("genrec_results_short_total") == 1


@pytest.mark.parametrize("poison", [BREAKS, UNANSWERABLE])
async def test_an_inference_error_is_a_500_that_says_nothing_and_the_service_goes_on(running, poison):
    reply = await running.recommend(poison)
    assert reply.status_code == 500
    assert reply.json()["detail"] == "The service could not answer; its log says why under this request id."
    assert "deadbeef" not in reply.text
    assert (await running.recommend("1")).status_code == 200


async def test_the_queue_takes_its_number_refuses_the_next_and_answers_all_it_took():
    async with serving(max_queue_rows=6, max_batch_requests=4) as running:
        running.recommender.gate.clear()
        admitted = [asyncio.create_task(running.recommend("1")) for _ in range(6)]
        await eventually(lambda: running.depth == 6)
        refused = await asyncio.gather(*[running.recommend("1") for _ in range(10)])
        assert {reply.status_code for reply in refused} == {429}
        assert refused[0].json()["code"] == "overloaded"
        assert int(refused[0].headers["retry-after"]) >= 1
        running.recommender.gate.set()
        assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200] * 6
        assert running.recommender.computed == 6
        assert await running.metric('genrec_rejected_total{reason="overloaded"}') == 10
        assert await running.metric("genrec_queue_depth") == 0


async def test_probes_and_catalog_answer_while_the_model_computes(running):
    running.recommender.gate.clear()
    busy = asyncio.create_task(running.recommend("1"))
    await eventually(running.recommender.entered.is_set)
    for path in ("/health", "/ready", "/info", "/metrics", "/v1/items?q=star"):
        assert (await asyncio.wait_for(running.client.get(path), 1.0)).status_code == 200
    running.recommender.gate.set()
    await busy
    assert running.recommender.threads == {"inference"}


async def test_a_deadline_that_passes_in_the_queue_is_504_without_inference(running):
    running.recommender.gate.clear()
    busy = asyncio.create_task(running.recommend("1"))
    await eventually(running.recommender.entered.is_set)
    begin = asyncio.get_running_loop().time()
    reply = await running.recommend("1", timeout_ms=50)
    assert asyncio.get_running_loop().time() - begin < 0.5
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    running.recommender.gate.set()
    await busy
    assert running.recommender.computed == 1


async def test_the_default_deadline_is_a_setting():
    async with serving(default_timeout_ms=50) as running:
        running.recommender.gate.clear()
        assert (await running.recommend("1")).status_code == 504


async def test_a_client_that_leaves_frees_its_place_and_is_never_computed():
    async with serving(max_queue_rows=3, max_batch_requests=1) as running:
        running.recommender.gate.clear()
        busy = asyncio.create_task(running.recommend("1"))
        await eventually(running.recommender.entered.is_set)
        hang_up = asyncio.Event()
        leaving = [asyncio.create_task(post_and_leave(running.app, hang_up)) for _ in range(2)]
        await eventually(lambda: running.depth == 3)
        assert (await running.recommend("1")).status_code == 429
        hang_up.set()
        assert await asyncio.gather(*leaving) == [[], []], "nothing is sent to a client that has gone"
        await eventually(lambda: running.depth == 1)
        staying = asyncio.create_task(running.recommend("2"))
        await eventually(lambda: running.depth == 2)
        running.recommender.gate.set()
        assert {(await busy).status_code, (await staying).status_code} == {200}
        assert running.recommender.computed == 2
        assert await running.metric('genrec_requests_total{endpoint="/recommend",status="499"}') == 2


async def post_and_leave(app, hang_up: asyncio.Event) -> list[object]:
    """A client that sends its request whole and hangs up later. Returns what was sent to it."""
    body = iter([{"type": "http.request", "body": b'{"history": ["1"]}', "more_body": False}])
    sent: list[object] = []

    async def receive():
        if (message := next(body, None)) is not None:
            return message
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/recommend", "raw_path": b"/recommend", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json")], "client": None, "server": None,
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


async def test_a_batch_answers_each_in_its_place(running):
    reply = await running.client.post(
        "/v1/recommend/batch",
        json={
            "requests": [
                {"history": ["1"], "k": 1, "request_id": "mine"},
                {"history": ["1"], "k": 0},
                5,
                {"history": [BREAKS]},
                {"history": [], "k": 2, "fields": []},
                {"history": ["1"], "fields": ["nope"]},
            ]
        },
    )
    results = reply.json()["results"]
    assert [result.get("status", 200) for result in results] == [200, 422, 422, 500, 200, 422]
    assert [result.get("pointer") for result in results] == [None, "/k", "", None, None, "/fields/0"]
    assert results[0]["request_id"] == "mine"
    assert results[1]["request_id"] == reply.headers["x-request-id"] + ".1"
    assert [item["item_id"] for item in results[4]["items"]] == ["7", "1"]


async def test_a_request_in_a_batch_is_answered_as_if_it_were_alone(running):
    requests = [{"history": [str(row)], "k": 1 + row, "request_id": "x"} for row in range(9)]
    batch = (await running.client.post("/v1/recommend/batch", json={"requests": requests})).json()["results"]
    alone = [(await running.client.post("/recommend", json=request)).json() for request in requests]
    for answer in [*batch, *alone]:
        del answer["timing_ms"]
    assert batch == alone


async def test_a_batch_costs_as_many_places_as_it_has_requests():
    async with serving(max_queue_rows=6, max_batch_requests=6) as running:
        running.recommender.gate.clear()
        busy = asyncio.create_task(running.recommend("1"))
        await eventually(lambda: running.depth == 1)
        requests = [{"history": ["1"]}] * 6
        assert (await running.client.post("/v1/recommend/batch", json={"requests": requests})).status_code == 429
        fits = asyncio.create_task(running.client.post("/v1/recommend/batch", json={"requests": requests[:5]}))
        await eventually(lambda: running.depth == 6)
        running.recommender.gate.set()
        assert (await fits).status_code == (await busy).status_code == 200


async def test_refused_requests_of_a_batch_cost_nothing(running):
    reply = await running.client.post("/v1/recommend/batch", json={"requests": [{"history": ["1"], "k": 0}] * 3})
    assert [result["status"] for result in reply.json()["results"]] == [422] * 3
    assert running.recommender.asked == []


async def test_a_batch_has_the_shortest_deadline_of_its_requests(running):
    running.recommender.gate.clear()
    requests = [{"history": ["1"]}, {"history": ["1"], "timeout_ms": 30}]
    assert (await running.client.post("/v1/recommend/batch", json={"requests": requests})).status_code == 504


@pytest.mark.parametrize("body", [{"requests": []}, {"requests": {}}, {}, {"requests": [{"history": []}] * 65}])
async def test_a_batch_without_a_frame_or_too_long_is_refused_whole(running, body):
    reply = await running.client.post("/v1/recommend/batch", json=body)
    assert (reply.status_code, reply.json()["pointer"]) == (422, "/requests")


async def test_the_numbers_of_an_answer_are_counted(running):
    await running.recommend("1", "nowhere")
    await running.recommend()
    await running.recommend("nowhere")
    assert await running.metric("genrec_unknown_items_total") == 2
    assert await running.metric("genrec_history_items_sum") == 3
    assert await running.metric('genrec_stage_seconds_count{stage="decode"}') == 3
    assert await running.metric('genrec_fallback_total{reason="empty_history"}') == 1
    assert await running.metric('genrec_fallback_total{reason="unknown_history"}') == 1
    assert await running.metric('genrec_requests_total{endpoint="/recommend",status="200"}') == 3


async def test_a_score_that_is_not_finite_never_becomes_broken_json(running, monkeypatch):
    item = running.recommender._item(0, 0, True)
    monkeypatch.setattr(running.recommender, "_item", lambda *_: type(item)(*_fields(item, score=float("nan"))))
    reply = await send_raw(running.app, json.dumps({"history": ["1"]}).encode())
    assert reply.status == 200
    assert reply.json["items"][0]["score"] is None


def _fields(item, **changes):
    return [changes.get(name, getattr(item, name)) for name in type(item).__slots__]
