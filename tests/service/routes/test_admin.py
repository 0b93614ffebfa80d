"""The administrators' routes: what they take, what they say, and what it does to answers."""

import asyncio
import json
import os
import shutil
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from genrec.errors import BundleError
from service.admin import create_admin_app
from service.admin_schemas import MAX_CHANGE_ITEMS
from service.routes.admin import MAX_BODY_BYTES
from service.tokens import Tokens
from tests.service.fakes import FakeBundle, FakeRecommender, Running, eventually, serving

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery"


@dataclass(frozen=True)
class Administered:
    service: Running
    admin: httpx.AsyncClient

    async def change(self, **change: Any) -> httpx.Response:
        return await self.admin.post("/admin/catalog", json=change)

    async def status(self) -> dict[str, int]:
        return (await self.admin.get("/admin/catalog")).json()

    async def answer(self, **fields: Any) -> tuple[int, set[str]]:
        """The version of an answer, and its items."""
        answer = (await self.service.recommend("1", exclude_history=False, k=20, **fields)).json()
        return answer["catalog_version"], {item["item_id"] for item in answer["items"]}


@asynccontextmanager
async def administered(tmp_path, **settings: Any):
    (tmp_path / "tokens").write_text(TOKEN)
    async with serving(state_dir=tmp_path / "state", **settings) as service:
        app = create_admin_app(service.app.state.service, Tokens.read(tmp_path / "tokens"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://admin", headers=headers
        ) as client:
            yield Administered(service, client)


@pytest.fixture
async def both(tmp_path):
    async with administered(tmp_path) as running:
        yield running


EVERYTHING = {*map(str, range(10)), "films/alien?", "é🎬"}


async def test_what_is_off_is_not_answered_until_it_is_on_again(both):
    assert await both.answer() == (0, EVERYTHING)
    changed = await both.change(off=["7", "2", "é🎬", "nope"])
    assert changed.status_code == 200
    assert changed.json() == {"catalog_version": 1, "items_off": 3, "unknown_items_off": 1, "unknown_items": 1}
    assert await both.answer() == (1, EVERYTHING - {"7", "2", "é🎬"})
    assert (await both.change(on=["7"], off=["3"])).json()["catalog_version"] == 2
    assert await both.answer() == (2, EVERYTHING - {"3", "2", "é🎬"})
    assert await both.status() == {"catalog_version": 2, "items_off": 3, "unknown_items_off": 1}


async def test_what_is_off_is_not_answered_by_the_fallback_either(both):
    await both.change(off=["7"])
    answer = (await both.service.recommend("nobody knows this", k=20)).json()
    assert {item["source"] for item in answer["items"]} == {"popular"}
    assert "7" not in {item["item_id"] for item in answer["items"]}
    assert answer["catalog_version"] == 1


async def test_info_and_metrics_show_it(both):
    await both.change(off=["7", "2"])
    info = (await both.service.client.get("/info")).json()
    assert (info["catalog_version"], info["items_off"], info["num_items"]) == (1, 2, 12)
    assert await both.service.metric("genrec_catalog_version") == 1
    assert await both.service.metric("genrec_items_off") == 2


async def test_the_next_service_finds_it(tmp_path):
    async with administered(tmp_path) as before:
        await before.change(off=["7", "2"])
        await before.change(off=["later"], on=["2"])
    async with administered(tmp_path) as after:
        assert await after.answer() == (2, EVERYTHING - {"7"})
        assert await after.status() == {"catalog_version": 2, "items_off": 1, "unknown_items_off": 1}


async def test_a_service_without_an_admin_listener_honours_it_too(tmp_path, logged):
    async with administered(tmp_path) as before:
        await before.change(off=["7"])
    logged.clear()
    async with serving(state_dir=tmp_path / "state") as service:
        assert (await service.recommend("1")).json()["catalog_version"] == 1
        await eventually(lambda: any("catalog_version" in event for event in logged))  # it may answer a moment sooner
    [told] = [event for event in logged if "catalog_version" in event]
    assert (told["catalog_version"], told["items_off"]) == (1, 1)


async def test_an_answer_that_is_being_made_is_made_under_one_version(both):
    recommender = both.service.recommender
    recommender.gate.clear()
    running = asyncio.create_task(both.answer())
    await eventually(recommender.entered.is_set)
    waiting = asyncio.create_task(both.answer())
    await eventually(lambda: both.service.depth == 2)
    assert (await both.change(off=["7"])).status_code == 200, "a busy model keeps nobody from switching"
    later = asyncio.create_task(both.answer())
    await eventually(lambda: both.service.depth == 3)
    recommender.gate.set()
    assert await running == await waiting == (0, EVERYTHING), "each by the catalog that it was checked against"
    assert await later == (1, EVERYTHING - {"7"})


async def test_a_batch_is_answered_under_one_version_however_many_calls_it_takes(tmp_path):
    async with administered(tmp_path, max_batch_rows=1) as both:
        both.service.recommender.gate.clear()
        body = {"requests": [{"history": ["1"]}] * 4}
        batch = asyncio.create_task(both.service.client.post("/v1/recommend/batch", json=body))
        await eventually(both.service.recommender.entered.is_set)
        await both.change(off=["7"])
        both.service.recommender.gate.set()
        results = (await batch).json()["results"]
        assert [result["catalog_version"] for result in results] == [0] * 4


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"off": ["1", "1"], "on": ["2", "3", "1"]}, 422, "/on/2"),
        ({"off": ["1", 2]}, 422, "/off/1"),
        ({"off": ["1", ""]}, 422, "/off/1"),
        ({"off": ["a\nb"]}, 422, "/off/0"),
        ({"off": ["x" * 513]}, 422, "/off/0"),
        ({"off": None}, 422, "/off"),
        ({"off": "1"}, 422, "/off"),
        ({"off": {"1": True}}, 422, "/off"),
        ({"of": ["1"]}, 422, ""),
        ({"off": ["1"], "force": True}, 422, ""),
        (["1"], 422, ""),
    ],
)
async def test_a_change_that_does_not_fit_is_refused_whole(both, body, status, pointer):
    reply = await both.admin.post("/admin/catalog", json=body)
    assert (reply.status_code, reply.json()["pointer"]) == (status, pointer)
    assert await both.answer() == (0, EVERYTHING)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"off": ["1"], "off": []}', {}, 400),
        (b'{"off": ["\\ud800"]}', {}, 400),
        (b'{"off": [NaN]}', {}, 400),
        (b'{"off": ' + b"[" * 100, {}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b'{"off": ["' + b"x" * MAX_BODY_BYTES + b'"]}', {}, 413),
    ],
)
async def test_a_body_that_is_no_change_is_refused(both, content, headers, status):
    given = {"content-type": "application/json"} | headers
    assert (await both.admin.post("/admin/catalog", content=content, headers=given)).status_code == status
    assert (await both.status())["catalog_version"] == 0


async def test_the_longest_lists_are_taken_quickly_and_one_item_more_is_not(both):
    item_ids = [f"item-{number:08d}" for number in range(MAX_CHANGE_ITEMS)]
    begin = time.perf_counter()
    reply = await both.change(off=item_ids, on=[f"on-{item_id}" for item_id in item_ids])
    assert time.perf_counter() - begin < 5.0  # measured: 0.4
    assert reply.json()["unknown_items_off"] == MAX_CHANGE_ITEMS
    assert reply.json()["unknown_items"] == 2 * MAX_CHANGE_ITEMS
    assert (await both.change(off=[*item_ids, "x"])).status_code == 422


async def test_a_disk_that_is_full_is_507_and_nothing_has_changed(both, monkeypatch, logged):
    await both.change(off=["7"])
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        reply = await both.change(off=["2"])
    assert (reply.status_code, reply.json()["code"]) == (507, "not_stored")
    assert "/" not in reply.json()["detail"]
    assert "No space left on device" in logged[-1]["reason"]
    assert await both.answer() == (1, EVERYTHING - {"7"})
    assert (await both.change(off=["2"])).json()["catalog_version"] == 2


async def test_before_it_is_loaded_there_is_nothing_to_switch(tmp_path):
    def load(*_: object, **__: object) -> Any:
        time.sleep(0.3)
        raise MemoryError

    async with administered(tmp_path, load=load, until="loading") as both:
        for reply in (await both.change(off=["1"]), await both.admin.get("/admin/catalog")):
            assert (reply.status_code, reply.json()["code"]) == (503, "not_ready")
        assert await both.service.metric('genrec_rejected_total{reason="not_ready"}') == 0, "of recommendations"
        assert await both.service.metric("genrec_catalog_version") == 0


async def test_a_service_that_keeps_no_state_switches_nothing(tmp_path):
    (tmp_path / "tokens").write_text(TOKEN)
    async with serving() as service:
        app = create_admin_app(service.app.state.service, Tokens.read(tmp_path / "tokens"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a", headers=headers) as admin:
            assert (await admin.post("/admin/catalog", json={"off": ["1"]})).status_code == 503


async def test_a_log_line_counts_and_names_no_item(both, logged):
    await both.change(off=["films/alien?", "nope"])
    line = logged[-1]
    assert (line["route"], line["off"], line["on"], line["unknown_items"]) == ("/admin/catalog", 2, 0, 1)
    assert "alien" not in json.dumps(logged[2:], default=str)


# --- bundles ----------------------------------------------------------------------------------------------------------


class Loading:
    """Loads fakes that know where they came from; waits while its gate is closed."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path: Path, _: object) -> Any:
        self.loaded.append(path.name)
        self.gate.wait(10)
        if path.name == "bad":
            raise BundleError(f"{path}: file x has another hash")
        return FakeRecommender(FakeBundle(path=path))


@asynccontextmanager
async def with_bundles(tmp_path, causal_bundle_path):
    for name in ("small", "next", "bad"):
        shutil.copytree(causal_bundle_path, tmp_path / "shelf" / name)
    loading = Loading()
    async with administered(tmp_path, load=loading, bundle=tmp_path / "shelf" / "small") as both:
        try:
            yield both, loading
        finally:
            loading.gate.set()


@pytest.fixture
async def bundles(tmp_path, causal_bundle_path):
    async with with_bundles(tmp_path, causal_bundle_path) as running:
        yield running


def served(both: Administered) -> str:
    return both.service.app.state.service.inference.recommender.bundle.path.name


async def test_a_bundle_is_reloaded_and_rolled_back(bundles, logged):
    both, _ = bundles
    reply = await both.admin.post("/admin/reload", json={"bundle": "next"})
    assert reply.status_code == 200
    answer = reply.json()
    assert answer.pop("load_s") >= 0
    assert answer == {
        "current": "next", "previous": "small", "bundle": {"name": "small", "version": "0123456789ab"},
    }  # fmt: skip
    assert served(both) == "next"
    assert (logged[-1]["route"], logged[-1]["current"]) == ("/admin/reload", "next")
    back = await both.admin.post("/admin/rollback", json={})
    assert (back.status_code, back.json()["current"], back.json()["previous"]) == (200, "small", "next")
    for outcome, count in (("swapped", 1), ("rolled_back", 1), ("refused", 0)):
        assert await both.service.metric(f'genrec_reloads_total{{outcome="{outcome}"}}') == count


async def test_a_refused_bundle_is_422_with_its_reason_and_without_a_path(bundles, tmp_path):
    both, _ = bundles
    reply = await both.admin.post("/admin/reload", json={"bundle": "bad"})
    assert (reply.status_code, reply.json()["code"]) == (422, "bundle_refused")
    assert reply.json()["detail"] == "bad: file x has another hash"
    assert served(both) == "small"
    assert await both.service.metric('genrec_reloads_total{outcome="refused"}') == 1


async def test_a_second_reload_is_409_while_the_first_loads_and_requests_are_answered(bundles):
    both, loading = bundles
    loading.gate.clear()
    first = asyncio.create_task(both.admin.post("/admin/reload", json={"bundle": "next"}))
    await eventually(lambda: "next" in loading.loaded)
    for path, body in (("/admin/reload", {"bundle": "next"}), ("/admin/reload", {"bundle": "bad"})):
        reply = await both.admin.post(path, json=body)
        assert (reply.status_code, reply.json()["code"]) == (409, "busy")
    assert (await both.service.recommend("1")).status_code == 200
    loading.gate.set()
    assert (await first).status_code == 200
    assert served(both) == "next"


async def test_there_must_be_a_bundle_to_go_back_to(bundles):
    both, _ = bundles
    reply = await both.admin.post("/admin/rollback", json={})
    assert (reply.status_code, reply.json()["code"]) == (409, "nothing_before")


async def test_a_reload_goes_on_when_its_client_leaves(bundles):
    both, loading = bundles
    loading.gate.clear()
    leaving = asyncio.create_task(both.admin.post("/admin/reload", json={"bundle": "next"}))
    await eventually(lambda: "next" in loading.loaded)
    leaving.cancel()
    loading.gate.set()
    await eventually(lambda: served(both) == "next")


async def test_what_was_admitted_is_answered_by_the_bundle_it_was_checked_against(bundles):
    both, _ = bundles
    before = both.service.app.state.service.inference.recommender
    before.gate.clear()
    waiting = asyncio.create_task(both.service.recommend("1"))
    await eventually(before.entered.is_set)
    assert (await both.admin.post("/admin/reload", json={"bundle": "next"})).status_code == 200
    after = both.service.app.state.service.inference.recommender
    before.gate.set()
    assert (await waiting).status_code == 200
    assert (before.computed, after.computed) == (1, 0)


async def test_the_shelf_is_listed_with_what_is_no_bundle(bundles, tmp_path):
    both, _ = bundles
    (tmp_path / "shelf" / "unfinished").mkdir()
    await both.admin.post("/admin/reload", json={"bundle": "next"})
    listing = (await both.admin.get("/admin/bundles")).json()
    assert (listing["current"], listing["previous"], listing["complete"]) == ("next", "small", True)
    by_name = {one["name"]: one for one in listing["bundles"]}
    assert sorted(by_name) == ["bad", "next", "small", "unfinished"]
    assert by_name["next"]["bundle"]["name"] == "tiny"
    assert "no manifest.json" in by_name["unfinished"]["reason"]
    assert str(tmp_path) not in json.dumps(listing)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("reload", {}, 422),
        ("reload", {"bundle": ""}, 422),
        ("reload", {"bundle": "../small"}, 422),
        ("reload", {"bundle": 7}, 422),
        ("reload", {"bundle": None}, 422),
        ("reload", {"bundle": "next", "force": True}, 422),
        ("reload", {"path": "/etc"}, 422),
        ("reload", {"bundle": "absent"}, 422),
        ("rollback", {"bundle": "next"}, 422),
        ("rollback", [], 422),
    ],
)
async def test_what_names_no_bundle_is_refused(bundles, path, body, status):
    both, loading = bundles
    reply = await both.admin.post(f"/admin/{path}", json=body)
    assert reply.status_code == status, reply.text
    assert (served(both), loading.loaded) == ("small", ["small"])


async def test_a_service_that_drains_loads_no_bundle(bundles):
    both, loading = bundles
    both.service.app.state.service.drain()
    reply = await both.admin.post("/admin/reload", json={"bundle": "next"})
    assert (reply.status_code, reply.json()["code"]) == (503, "not_ready")
    assert loading.loaded == ["small"]


async def test_a_reload_that_loads_when_the_service_begins_to_drain_is_told_at_once(bundles):
    both, loading = bundles
    loading.gate.clear()
    waiting = asyncio.create_task(both.admin.post("/admin/reload", json={"bundle": "next"}))
    await eventually(lambda: "next" in loading.loaded)
    both.service.app.state.service.drain()
    async with asyncio.timeout(2):
        assert (await waiting).status_code == 503
    loading.gate.set()
    assert served(both) == "small"


async def test_a_service_that_keeps_no_state_reloads_nothing(tmp_path):
    (tmp_path / "tokens").write_text(TOKEN)
    async with serving() as service:
        app = create_admin_app(service.app.state.service, Tokens.read(tmp_path / "tokens"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a", headers=headers) as admin:
            assert (await admin.post("/admin/reload", json={"bundle": "next"})).status_code == 503
            assert (await admin.get("/admin/bundles")).status_code == 503
