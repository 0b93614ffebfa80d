import threading

import pytest

from tests.service.fakes import FakeBundle, FakeRecommender, serving

pytestmark = pytest.mark.anyio


async def test_the_bundle_tells_of_itself(tmp_path):
    (tmp_path / "README.md").write_text("# small\n")
    recommender = FakeRecommender(bundle=FakeBundle(path=tmp_path))
    async with serving(load=lambda *_, **__: recommender) as service:
        reply = await service.client.get("/v1/bundle")
    assert reply.status_code == 200
    assert reply.json() == {
        "bundle": {"name": "small", "version": "0123456789ab"}, "provenance": {}, "evaluation": None,
        "card": "# small\n",
    }  # fmt: skip


async def test_while_nothing_is_loaded_it_is_not_ready():
    gate = threading.Event()
    async with serving(load=lambda *_, **__: gate.wait() and FakeRecommender(), until=None) as loading:
        reply = await loading.client.get("/v1/bundle")
        gate.set()
    assert (reply.status_code, reply.json()["code"]) == (503, "not_ready")
