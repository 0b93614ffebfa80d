import pytest

from tests.service.fakes import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running():
    async with serving() as service:
        yield service


async def test_the_children_of_a_prefix_come_the_most_popular_first(running):
    body = (await running.client.get("/v1/tree", params={"prefix": "1", "limit": 1})).json()
    assert body == {
        "prefix": [1],
        "items": 4,
        "total": 2,
        "children": [
            {
                "semantic_id": [1, 1], "items": 2, "popularity": 56,
                "examples": [{"item_id": "7", "title": "Fargo"}, {"item_id": "6", "title": None}],
            }
        ],
    }  # fmt: skip


async def test_without_a_prefix_it_begins_at_the_root(running):
    for query in ("", "?prefix="):
        body = (await running.client.get(f"/v1/tree{query}")).json()
        assert (body["prefix"], body["items"], body["total"]) == ([], 12, 3)
        assert [child["semantic_id"] for child in body["children"]] == [[1], [2], [0]]
        assert [len(child["examples"]) for child in body["children"]] == [3, 3, 3]


async def test_an_item_is_a_prefix_with_nothing_below(running):
    body = (await running.client.get("/v1/tree?prefix=1,1,1")).json()
    assert body == {"prefix": [1, 1, 1], "items": 1, "total": 0, "children": []}


@pytest.mark.parametrize("prefix", ["3", "0,2", "1,1,1,0", "999999999"])
async def test_a_prefix_that_no_item_has_is_a_404(running, prefix):
    reply = await running.client.get("/v1/tree", params={"prefix": prefix})
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("prefix", ["a", "1,", ",1", "1 2", "-1", "1.5", "١", "9" * 10, "1," * 200 + "1", "\0", "1\n"])
async def test_what_is_no_prefix_is_refused(running, prefix):
    reply = await running.client.get("/v1/tree", params={"prefix": prefix})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert "prefix" in reply.json()["detail"]


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_a_limit_out_of_range_is_refused(running, limit):
    assert (await running.client.get("/v1/tree", params={"limit": limit})).status_code == 422
