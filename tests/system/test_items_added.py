"""Items are added to the bundle that is served, and a reload serves them: `genrec items add`, `POST /admin/reload`."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.system.faulty import TOKEN, administered
from tests.system.server import started
from tests.training.lifecycle import NEW, new_items
from tests.training.runs import train

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

HISTORIES = (["co00", "co03", "co04"], ["dr01"], ["we02", "co01"])


@dataclass(frozen=True)
class Shop:
    """What a client saw before the items were added and after."""

    before: dict[str, Any]
    after: dict[str, Any]
    client: httpx.Client


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("shop")
    shelf = root / "bundles"
    shutil.copytree(train("causal", root / "run").bundle, shelf / "may")
    new_items().write_parquet(root / "new.parquet")
    with (
        started(shelf / "may", log=root / "log", **administered(root)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        before = seen(client, [])
        command = ["items", "add", shelf / "may", "--items", root / "new.parquet", "--output", shelf / "june"]
        subprocess.run([sys.executable, "-m", "genrec", *map(str, command)], check=True, timeout=120)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        reply = httpx.post(f"{server.admin_url}/admin/reload", json={"bundle": "june"}, headers=headers, timeout=120)
        assert reply.status_code == 200, reply.text
        yield Shop(before, seen(client, list(NEW)), client)


def seen(client: httpx.Client, excluded: list[str]) -> dict[str, Any]:
    """Answers without some items, and the semantic ID of every item."""
    ids = {}
    for prefix in ("co", "cr", "dr", "we"):
        for number in range(12):
            item = client.get(f"/v1/items/{prefix}{number:02d}").json()
            ids[item["item_id"]] = item["semantic_id"]
    requests = [{"history": history, "k": 10, "exclude": excluded} for history in HISTORIES]
    answers = [client.post("/recommend", json=request).json()["items"] for request in requests]
    return {"ids": ids, "answers": answers, "version": client.get("/info").json()["bundle"]["version"]}


def test_another_version_is_served_in_which_no_semantic_id_has_moved(shop: Shop) -> None:
    assert shop.before["version"] != shop.after["version"]
    assert shop.before["ids"] == shop.after["ids"]
    assert len(shop.after["ids"]) == 48


def test_without_the_new_items_everybody_is_answered_as_before(shop: Shop) -> None:
    for before, after in zip(shop.before["answers"], shop.after["answers"], strict=True):
        assert [item["item_id"] for item in after] == [item["item_id"] for item in before]
        assert [item["score"] for item in after] == pytest.approx([item["score"] for item in before], abs=1e-5)
        assert [item["metadata"] for item in after] == [item["metadata"] for item in before]


def test_a_new_item_is_recommended_to_who_asks_for_it(shop: Shop) -> None:
    request = {"history": HISTORIES[0], "k": 3, "filter": {"include_ids": list(NEW)}}
    items = shop.client.post("/recommend", json=request).json()["items"]
    assert {item["item_id"] for item in items} == set(NEW)
    assert {item["source"] for item in items} == {"model"}


def test_a_new_item_is_scored_exactly(shop: Shop) -> None:
    request = {"history": HISTORIES[0], "candidates": [*NEW, "co05"]}
    reply = shop.client.post("/v1/score", json=request).json()
    assert [item["item_id"] for item in reply["items"]] == [*NEW, "co05"]
    assert all(item["score"] < 0 and 0 <= item["probability"] < 1 for item in reply["items"])
    filtered = {"history": HISTORIES[0], "k": 3, "filter": {"include_ids": list(NEW)}}
    searched = shop.client.post("/recommend", json=filtered).json()["items"]
    scored = {item["item_id"]: item["score"] for item in reply["items"]}
    assert {item["item_id"]: item["score"] for item in searched} == pytest.approx(
        {item: scored[item] for item in NEW}, abs=1e-5
    )


def test_a_new_item_is_in_the_catalog_by_id_and_by_title(shop: Shop) -> None:
    item = shop.client.get(f"/v1/items/{NEW[0]}").json()
    assert item["metadata"] == {"title": "Comedy number 77", "year": 1999, "genres": ["Comedy"]}
    found = shop.client.get("/v1/items", params={"q": "number 77"}).json()["items"]
    assert [item["item_id"] for item in found] == [NEW[0]]


def test_a_new_item_counts_in_a_history(shop: Shop) -> None:
    answer = shop.client.post("/recommend", json={"history": [NEW[0]], "k": 3}).json()
    assert (answer["history_used"], answer["unknown_items"]) == (1, [])
    assert answer["items"][0]["source"] == "model"
