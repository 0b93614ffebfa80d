import pytest

from service.playground import CONTENT_SECURITY_POLICY, read_assets
from tests.service.fakes import send_raw, serving

pytestmark = pytest.mark.anyio

MEDIA_TYPES = {
    "/ui/": "text/html; charset=utf-8",
    "/ui/status": "text/html; charset=utf-8",
    "/ui/playground.js": "text/javascript; charset=utf-8",
    "/ui/base.css": "text/css; charset=utf-8",
    "/ui/icon.svg": "image/svg+xml",
}
ELSEWHERE = [
    "/ui/nope.js",
    "/ui/index.html",
    "/ui/../settings.py",
    "/ui/../../pyproject.toml",
    "/ui/..%2fsettings.py",
    "/ui/%2e%2e/settings.py",
    "/ui/%2e%2e%2fsettings.py",
    "/ui/..\\settings.py",
    "/ui//etc/passwd",
    "/ui/%2fetc%2fpasswd",
    "/ui/playground.js/",
    "/ui/playground.js%00.css",
    "/ui/PLAYGROUND.JS",
    "/ui/./playground.js",
]


@pytest.fixture
async def running():
    async with serving() as service:
        yield service


@pytest.mark.parametrize("path", MEDIA_TYPES)
async def test_a_file_comes_with_its_type_its_tag_and_the_policy(running, path):
    reply = await running.client.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (200, MEDIA_TYPES[path])
    assert reply.content == read_assets()[path.removeprefix("/ui/")].body
    assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["etag"].startswith('"')


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_who_has_it_is_told_so_without_it(running, form):
    etag = (await running.client.get("/ui/playground.js")).headers["etag"]
    reply = await running.client.get("/ui/playground.js", headers={"if-none-match": form.format(etag)})
    assert (reply.status_code, reply.content) == (304, b"")
    assert reply.headers["etag"] == etag
    assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY


async def test_who_has_another_gets_it(running):
    reply = await running.client.get("/ui/playground.js", headers={"if-none-match": '"other"'})
    assert reply.status_code == 200


async def test_a_head_says_how_long_it_would_be(running):
    reply = await running.client.head("/ui/")
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["content-length"]) == len((await running.client.get("/ui/")).content)


async def test_without_the_slash_it_leads_there_and_keeps_a_prefix(running):
    reply = await running.client.get("/ui")
    assert (reply.status_code, reply.headers["location"]) == (308, "ui/")


@pytest.mark.parametrize("path", ELSEWHERE)
async def test_what_is_no_file_of_the_playground_is_not_there(running, path):
    # As bare bytes: a client library would tidy the path up before it is sent.
    reply = await send_raw(running.app, b"", path=path, method="GET", headers=())
    assert (reply.status, reply.json["code"]) == (404, "not_found")


async def test_files_are_not_read_again_once_it_serves(running, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a request reached the disk")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("os.open", refuse)
    assert (await running.client.get("/ui/")).status_code == 200


async def test_a_post_is_not_taken(running):
    assert (await running.client.post("/ui/")).status_code == 405


async def test_it_is_no_part_of_the_described_interface(running):
    document = (await running.client.get("/openapi.json")).json()
    assert not [path for path in document["paths"] if path.startswith("/ui")]


async def test_the_pages_come_while_the_bundle_still_loads():
    async with serving(until=None) as loading:
        assert (await loading.client.get("/ui/")).status_code == 200


async def test_it_can_be_switched_off():
    async with serving(ui="off") as service:
        for path in MEDIA_TYPES:
            assert (await service.client.get(path)).status_code == 404
        assert (await service.client.get("/ready")).status_code == 200


async def test_scanners_below_it_do_not_grow_the_metrics(running):
    for number in range(20):
        await running.client.get(f"/ui/{number}.php")
    assert await running.metric('genrec_requests_total{endpoint="/ui/{name}",status="404"}') == 20


async def test_with_keys_in_force_the_pages_need_one_unless_opened(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-thirty-two-characters-or-more\n")
    async with serving(api_keys_file=keys) as closed:
        assert (await closed.client.get("/ui/")).status_code == 401
    async with serving(api_keys_file=keys, ui="open") as opened:
        for path in MEDIA_TYPES:
            assert (await opened.client.get(path)).status_code == 200
        assert (await opened.client.get("/info")).status_code == 401
