"""The life of a service in this process: it loads, is ready, fails. Real ends of real processes: test_commands."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from genrec.errors import BundleError, EngineError, InputError
from service.settings import Settings
from tests.service.fakes import BREAKS, KILLS, FakeRecommender, eventually, serving

pytestmark = pytest.mark.anyio


async def test_probes_answer_while_it_loads_and_the_rest_waits(logged):
    gate = threading.Event()
    loaded_in: list[str] = []

    def load(*_: object, **__: object) -> FakeRecommender:
        loaded_in.append(threading.current_thread().name)
        gate.wait()
        return FakeRecommender()

    async with serving(load=load, until="loading") as running:
        assert (await running.client.get("/health")).status_code == 200
        assert (await running.client.get("/metrics")).status_code == 200
        for reply in (
            await running.client.get("/ready"),
            await running.client.get("/info"),
            await running.client.get("/v1/items"),
            await running.recommend("1"),
        ):
            assert (reply.status_code, reply.json()["code"]) == (503, "not_ready")
            assert "retry-after" in reply.headers
        gate.set()
        await eventually(lambda: running.app.state.service.inference.state == "ready")
        assert (await running.client.get("/ready")).status_code == 200
        assert loaded_in == ["inference"]
        assert running.ended == []


async def test_the_loader_is_given_the_bundle_and_the_settings():
    given: list[object] = []

    def load(bundle: Path, settings: Settings) -> FakeRecommender:
        given.extend([bundle, settings.device])
        return FakeRecommender()

    async with serving(load=load, device="cuda:1"):
        assert given == [Path("bundles/small"), "cuda:1"]


async def test_when_it_is_ready_it_says_where_and_how_to_try_it(logged):
    async with serving(port=8123):
        await eventually(lambda: any(entry["event"].startswith("try: ") for entry in logged))
    ready, trial = logged[-2:]
    assert ready | {"event": "ready", "url": "http://127.0.0.1:8123", "device": "cpu", "engine": "fake"} == ready
    assert ready["docs"] == "http://127.0.0.1:8123/docs"
    assert trial["event"] == (
        "try: curl -s http://127.0.0.1:8123/recommend -H 'content-type: application/json' "
        """-d '{"history": ["7", "1"], "k": 10}'"""
    )


@pytest.mark.parametrize(
    "refusal", [BundleError("file model/x is damaged."), InputError("device cuda cannot be had here.")]
)
async def test_a_refused_bundle_is_one_sentence_and_exit_65(logged, refusal):
    def load(*_: object, **__: object) -> FakeRecommender:
        raise refusal

    async with serving(load=load, until="failed") as running:
        assert (await running.client.get("/ready")).status_code == 503
        assert (await running.recommend("1")).status_code == 503
        await eventually(lambda: running.ended)
        assert running.ended == [65]
    errors = [event for event in logged if event["log_level"] == "error"]
    assert [event["reason"] for event in errors] == [str(refusal)]
    assert all("exc_info" not in event for event in errors)


async def test_a_load_that_breaks_is_exit_70():
    def load(*_: object, **__: object) -> FakeRecommender:
        raise MemoryError

    async with serving(load=load, until="failed") as running:
        await eventually(lambda: running.ended)
        assert running.ended == [70]


async def test_a_hung_engine_is_not_ready_within_two_seconds_and_then_ends_the_process():
    async with serving(watchdog_timeout_ms=2_000) as running:
        running.recommender.gate.clear()
        hung, behind = (asyncio.create_task(running.recommend("1")) for _ in range(2))
        await eventually(running.recommender.entered.is_set)
        begin = time.monotonic()
        while (await running.client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        assert time.monotonic() - begin < 2.0
        assert (await running.client.get("/health")).status_code == 200
        assert {(await hung).status_code, (await behind).status_code} == {503}
        assert (await running.recommend("1")).status_code == 503
        await eventually(lambda: running.ended)
        assert running.ended == [70]
        assert await running.metric("genrec_ready") == 0


async def test_a_dead_engine_is_not_ready_at_once_and_ends_the_process(logged):
    async with serving() as running:
        assert (await running.recommend(KILLS)).status_code == 503
        assert (await running.client.get("/ready")).status_code == 503
        assert (await running.recommend("1")).status_code == 503
        await eventually(lambda: running.ended)
        assert running.ended == [70]
    assert any(event.get("reason") == "the inference thread died of SystemExit." for event in logged)


async def test_an_engine_that_was_only_slow_is_ready_again():
    async with serving(stall_timeout_ms=50) as running:
        running.recommender.gate.clear()
        slow = asyncio.create_task(running.recommend("1"))
        await eventually(lambda: running.app.state.service.inference.state == "stalled")
        assert (await running.client.get("/ready")).status_code == 503
        running.recommender.gate.set()
        assert (await slow).status_code == 200
        assert (await running.client.get("/ready")).status_code == 200
        assert running.ended == []


async def test_a_broken_request_does_not_end_the_process():
    async with serving() as running:
        assert (await running.recommend(BREAKS)).status_code == 500
        await asyncio.sleep(0.3)
        assert running.ended == []


async def test_a_stop_waits_for_what_was_admitted():
    async with serving() as running:
        running.recommender.gate.clear()
        admitted = asyncio.create_task(running.recommend("1"))
        await eventually(running.recommender.entered.is_set)
        asyncio.get_running_loop().call_later(0.1, running.recommender.gate.set)
        stopping = asyncio.create_task(asyncio.to_thread(running.app.state.service.inference.stop, 5.0))
        await eventually(lambda: running.app.state.service.inference.state == "stopping")
        assert (await running.client.get("/ready")).status_code == 503
        await stopping
        assert (await admitted).status_code == 200


async def test_a_watchdog_that_breaks_is_not_silent(monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("service.app._announce", broken)
    async with serving() as running:
        await eventually(lambda: running.ended)
        assert running.ended == [70]


async def test_an_engine_that_dies_before_it_is_announced_is_told_as_what_it_is(logged):
    died, gate = EngineError("the inference thread died of SystemExit."), threading.Event()

    def load(*_: object) -> FakeRecommender:
        gate.wait()
        return FakeRecommender()

    async with serving(load=load, until=None) as running:
        inference = running.app.state.service.inference
        inference.loaded.add_done_callback(lambda _: inference.fail(died))
        gate.set()
        await eventually(lambda: running.ended)
        assert running.ended == [70]
    assert [event["reason"] for event in logged if event["log_level"] == "error"] == [str(died)]
