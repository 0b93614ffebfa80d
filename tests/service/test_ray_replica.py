"""A replica as Ray Serve treats it: made from plain data, asked for its health, ended when it can answer no more."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from genrec.errors import BundleError, InputError
from service import ray_replica
from service.errors import NotReady
from service.invalid_outputs import TOO_MANY
from service.ray_replica import OneRequestId, Replica
from tests.service.fakes import KILLS, FakeRecommender, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_replica, "configure_logs", lambda *_: None)


@dataclass(frozen=True)
class Begun:
    replica: Replica
    app: FastAPI
    client: httpx.AsyncClient
    ended: list[int]


@asynccontextmanager
async def begun(load: Callable[..., Any] | None = None, **settings: Any) -> AsyncIterator[Begun]:
    """A replica up to the point where Ray Serve asks for its health."""
    recommender, ended = FakeRecommender(), []
    replica = Replica({"bundle": "small", **settings}, cast(Any, load or (lambda *_: recommender)), ended.append)
    app = replica.__serve_build_asgi_app__()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield Begun(replica, app, client, ended)


async def test_health_waits_for_the_bundle_and_is_told_when_it_may_answer() -> None:
    gate = threading.Event()
    recommender = FakeRecommender()

    def load(*_: object) -> FakeRecommender:
        gate.wait()
        return recommender

    async with begun(load) as one:
        assert (await one.client.get("/ready")).status_code == 503
        threading.Timer(0.1, gate.set).start()
        await one.replica.check_health()
        assert (await one.client.get("/ready")).status_code == 200


async def test_a_refused_bundle_is_told_to_ray_serve_and_does_not_end_the_process_before_that() -> None:
    def refuse(*_: object) -> FakeRecommender:
        raise BundleError("the file items.parquet is damaged.")

    async with begun(refuse) as one:
        with pytest.raises(BundleError, match="damaged"):
            await one.replica.check_health()
        one.replica._end_if_ready(65)  # as the watchdog does, half a second later
        assert one.ended == []


async def test_a_replica_whose_engine_died_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.app.FLUSH_S", 0.0)
    async with begun() as one:
        await one.replica.check_health()
        await one.client.post("/recommend", json={"history": ["1", KILLS]})
        await eventually(lambda: one.ended == [70])
        with pytest.raises(NotReady, match="failed"):
            await one.replica.check_health()


async def test_a_replica_that_answers_nonsense_is_not_healthy() -> None:
    async with begun() as one:
        await one.replica.check_health()
        one.app.state.service.inference._invalid.note(TOO_MANY, monotonic())
        with pytest.raises(NotReady, match="suspect"):
            await one.replica.check_health()


async def test_the_environment_of_the_node_does_not_reach_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_MAX_BODY_BYTES", "2048")
    monkeypatch.setenv("GENREC_UI", "off")
    async with begun(max_history_items=7) as one:
        await one.replica.check_health()
        limits = (await one.client.get("/info")).json()["limits"]
        assert (limits["max_body_bytes"], limits["max_history_items"]) == (256 * 1024, 7)
        assert (await one.client.get("/ui/")).status_code == 200


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="knows no keys"):
        Replica({"bundle": "small", "host": "0.0.0.0"})


async def test_an_answer_has_the_one_request_id_that_ray_serve_adds() -> None:
    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-request-id", b"ours"), (b"x-content-type-options", b"nosniff")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(OneRequestId(answered))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.get("/")
    assert dict(reply.headers) == {"x-content-type-options": "nosniff"}
    async with begun() as one:
        assert "x-request-id" not in (await one.client.get("/health")).headers
