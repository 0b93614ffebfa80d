from urllib.parse import quote

import pytest

from tests.service.fakes import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running():
    async with serving() as service:
        yield service


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("star", ["1", "0", "2"]),
        ("tar", ["1", "3", "0", "2"]),
        ("star w", ["1", "0"]),
        ("ame", ["é🎬"]),
        ("STAR war", ["1", "0"]),
        ("wars star", ["1", "0"]),
        ("amé", ["é🎬"]),
        ("alien", ["films/alien?", "4", "5"]),
        ("5", ["5"]),
        (".*", []),
        ("\x00", []),
    ],
)
async def test_titles_are_searched_by_words(running, query, found):
    body = (await running.client.get("/v1/items", params={"q": query})).json()
    assert [item["item_id"] for item in body["items"]] == found
    assert body["total"] == len(found)


async def test_without_a_query_all_items_come_the_most_popular_first(running):
    body = (await running.client.get("/v1/items?limit=2")).json()
    assert body == {
        "items": [
            {
                "item_id": "7", "semantic_id": [1, 1, 1], "popularity": 50,
                "metadata": {"title": "Fargo", "year": 1984, "genres": ["Drama"]},
            },
            {
                "item_id": "1", "semantic_id": [0, 0, 1], "popularity": 9,
                "metadata": {"title": "Wars of Stars", "year": 1978, "genres": ["Drama"]},
            },
        ],
        "total": 12,
    }  # fmt: skip


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", "1e1", "9" * 5_000])
async def test_a_limit_out_of_range_is_refused(running, limit):
    reply = await running.client.get("/v1/items", params={"limit": limit})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert "limit" in reply.json()["detail"]
    assert limit not in reply.json()["detail"] or limit in "0"


@pytest.mark.parametrize("item_id", ["7", "films/alien?", "é🎬"])
async def test_an_item_is_found_by_its_id_whatever_is_in_it(running, item_id):
    for path in (f"/v1/items/{quote(item_id, safe='')}", f"/v1/items/{quote(item_id)}"):
        assert (await running.client.get(path)).json()["item_id"] == item_id
    similar = await running.client.get(f"/v1/items/{quote(item_id, safe='')}/similar")
    assert similar.status_code == 200


@pytest.mark.parametrize("path", ["nowhere", "nowhere/similar", "", "7/", "%00", "..%2f..%2fetc%2fpasswd", "%ff"])
async def test_an_unknown_item_is_a_404_that_does_not_repeat_it(running, path):
    reply = await running.client.get(f"/v1/items/{path}")
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert "nowhere" not in reply.text


async def test_neighbours_share_most_codes_first_and_then_the_popular(running):
    body = (await running.client.get("/v1/items/0/similar")).json()
    assert [(item["item_id"], item["shared_levels"]) for item in body["items"]] == [("1", 2), ("3", 1), ("2", 1)]
    assert body["items"][0]["metadata"]["title"] == "Wars of Stars"
    assert len((await running.client.get("/v1/items/0/similar?limit=2")).json()["items"]) == 2


async def test_the_catalog_answers_503_until_it_is_loaded():
    async with serving(load=_never, until=None) as running:
        for path in ("/v1/items", "/v1/items/7", "/v1/items/7/similar"):
            assert (await running.client.get(path)).status_code == 503


def _never(*_: object, **__: object) -> object:
    import time

    time.sleep(0.3)
    raise SystemExit
