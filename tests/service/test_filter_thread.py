"""New filters are worked out beside the model, one at a time, within a bound and a deadline."""

import asyncio
import threading
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from genrec.filters import Filter, FilterMasks, _Key
from genrec.recommender import Recommender
from service import filter_thread
from service.errors import DeadlineExceeded, Overloaded
from service.filter_thread import FilterThread
from tests.service.fakes import serving

pytestmark = pytest.mark.anyio

YEARS = [Filter(where={"year": {"gte": 1900 + number}}) for number in range(6)]


class Slow:
    """Knows what it prepared; prepares while its gate is open."""

    def __init__(self) -> None:
        self.prepared: list[tuple[Filter | None, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def knows(self, asked: Filter | None) -> bool:
        return asked is None or asked in [one for one, _ in self.prepared]

    def prepare(self, asked: Filter | None) -> None:
        self.gate.wait()
        self.prepared.append((asked, threading.current_thread().name))


def slow() -> tuple[Slow, Recommender]:
    one = Slow()
    return one, cast(Recommender, one)


async def test_new_filters_are_prepared_in_their_thread_and_known_ones_are_not():
    made, recommender = slow()
    filters = FilterThread()
    for _ in range(2):
        await filters.ready(recommender, [None, YEARS[0], YEARS[1]], monotonic() + 5)
    assert [asked for asked, _ in made.prepared] == YEARS[:2]
    assert {name for _, name in made.prepared} == {"filters_0"}


async def test_what_is_known_does_not_wait_behind_what_is_new():
    made, recommender = slow()
    filters = FilterThread()
    await filters.ready(recommender, [YEARS[0]], monotonic() + 5)
    made.gate.clear()
    waiting = asyncio.create_task(filters.ready(recommender, [YEARS[1]], monotonic() + 5))
    await asyncio.sleep(0.02)
    await asyncio.wait_for(filters.ready(recommender, [YEARS[0]], monotonic() + 5), 1)
    assert not waiting.done()
    made.gate.set()
    await waiting


async def test_more_than_may_wait_are_refused_and_room_comes_back(monkeypatch):
    monkeypatch.setattr(filter_thread, "MAX_WAITING", 2)
    made, recommender = slow()
    filters = FilterThread()
    made.gate.clear()
    waiting = [asyncio.create_task(filters.ready(recommender, [one], monotonic() + 5)) for one in YEARS[:2]]
    await asyncio.sleep(0.02)
    with pytest.raises(Overloaded, match="2 new filters"):
        await filters.ready(recommender, [YEARS[2]], monotonic() + 5)
    made.gate.set()
    await asyncio.gather(*waiting)
    await filters.ready(recommender, [YEARS[2]], monotonic() + 5)
    await filters.ready(recommender, YEARS, monotonic() + 5)  # one batch alone may have more


async def test_a_deadline_ends_the_wait_and_gives_the_place_back(monkeypatch):
    monkeypatch.setattr(filter_thread, "MAX_WAITING", 1)
    made, recommender = slow()
    filters = FilterThread()
    made.gate.clear()
    for one in YEARS[:3]:
        with pytest.raises(DeadlineExceeded):
            await filters.ready(recommender, [one], monotonic() + 0.02)
    made.gate.set()
    await filters.ready(recommender, [YEARS[4]], monotonic() + 5)
    assert len(made.prepared) <= 2, "what nobody waits for any more is not begun"


async def test_the_model_finds_every_filter_worked_out(causal_bundle_path: Path, monkeypatch: pytest.MonkeyPatch):
    recommender = Recommender.load(causal_bundle_path)
    threads: list[str] = []
    work_out = _Key.mask

    def seen(self: Any, *rest: Any) -> Any:
        threads.append(threading.current_thread().name)
        return work_out(self, *rest)

    monkeypatch.setattr(_Key, "mask", seen)
    async with serving(load=lambda *_, **__: recommender) as running:
        fields: list[dict[str, Any]] = [{"filter": {"where": {"year": {"gte": 1900 + number}}}} for number in range(3)]
        assert (await running.recommend("i1", **fields[0])).status_code == 200
        assert (await running.recommend("i1", **fields[0], explain=True)).status_code == 200
        assert (await running.score(["i1"], ["i2"], **fields[1])).status_code == 200
        requests = [{"history": ["i1"], **one} for one in fields]
        assert (await running.client.post("/v1/recommend/batch", json={"requests": requests})).status_code == 200
    assert threads == ["filters_0"] * 3


def test_many_threads_get_one_mask_of_one_filter(causal_bundle_path: Path):
    recommender = Recommender.load(causal_bundle_path, golden=False)
    masks = FilterMasks(recommender.bundle.catalog, recommender.availability.mask)
    together = threading.Barrier(8)
    found: list[object] = []

    def ask() -> None:
        together.wait()
        found.append(masks.mask(YEARS[0]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
