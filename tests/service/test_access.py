"""Who may come in, and who may not: every route and method, every way to spell a path, every kind of token."""

import asyncio
import json
import re

import pytest
from starlette.routing import BaseRoute, Route

from genrec.errors import InputError
from service.access import Access, Attempts, Doors, peer_of
from service.admin import create_admin_app
from service.app import create_app
from service.playground import read_assets
from service.tokens import TokenFile
from tests.service.fakes import BREAKS, JSON, eventually, send_raw, serving, some_settings

pytestmark = pytest.mark.anyio

KEY, OTHER, METRICS_TOKEN, ADMIN_TOKEN = "correct-horse-battery", "the-key-that-comes-next", "m" * 20, "a" * 20
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", ""]
BODY = b'{"history": ["1"]}'


@pytest.fixture
def keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"shop {KEY}\n{OTHER}\n")
    return file


@pytest.fixture
async def running(keys):
    async with serving(api_keys_file=keys) as service:
        yield service


def bearer(token: str | bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + (token if isinstance(token, bytes) else token.encode())


def api_key(token: str | bytes) -> tuple[bytes, bytes]:
    return b"x-api-key", token if isinstance(token, bytes) else token.encode()


async def status(app, path, method="GET", *headers, client="127.0.0.1"):
    return (await send_raw(app, b"", path=path, method=method, headers=list(headers))).status


def paths_of(app) -> set[str]:
    """Every path that an application serves, shown in its interface or not."""

    def walk(routes: list[BaseRoute]):
        for route in routes:
            if isinstance(route, Route):
                yield re.sub(r"\{[^}]*\}", "7", route.path)
            else:
                yield from walk(route.original_router.routes)

    return set(walk(app.routes))


async def test_every_route_and_method_but_the_probes_needs_a_key(running):
    paths = paths_of(running.app) | {f"/ui/{name}" for name in read_assets()}
    assert {"/recommend", "/v1/score", "/v1/items/7", "/info", "/metrics", "/docs", "/openapi.json", "/ui"} <= paths
    assert {"/health", "/ready"} <= paths
    for path in paths | {"/", "", "*", "/nope", "/admin/catalog"}:
        for method in METHODS:
            reply = await send_raw(running.app, BODY, path=path, method=method, headers=[*JSON])
            expected = 200 if (method, path) in {("GET", "/health"), ("GET", "/ready")} else 401
            assert reply.status == expected, (method, path)


@pytest.mark.parametrize("given", [bearer(KEY), bearer(OTHER), api_key(KEY), api_key(f" {OTHER} "), bearer(f" {KEY} ")])
async def test_every_key_opens_in_either_header(running, given):
    assert (await send_raw(running.app, BODY, headers=[*JSON, given])).status == 200
    assert await status(running.app, "/metrics", "GET", given) == 200
    assert await status(running.app, "/nope", "GET", given) == 404


BYPASSES = [
    "//health", "/health/", "/HEALTH", "/Health", "/health%2f", "/%68ealth", "/health;x", "/health/../recommend",
    "/./health", "/health\x00", "/health ", " /health", "/ready/", "/health/recommend", "health", "@x/health",
    "http://x/health", "/recommend/../health", "/ui/../recommend", "/ui", "/ui/", "/metrics/", "//metrics", "/métrics",
]  # fmt: skip


@pytest.mark.parametrize("path", BYPASSES)
async def test_no_spelling_of_an_open_path_opens_a_closed_one(running, path):
    for method in ("GET", "POST"):
        assert await status(running.app, path, method) == 401


@pytest.mark.parametrize("host", [b"x/health", b"x/health?q=", b"health", b"", b"/health#", b"\xff"])
async def test_no_header_changes_what_a_path_needs(running, host):
    headers = [
        (b"host", host), (b"x-forwarded-path", b"/health"), (b"x-original-url", b"/health"),
        (b"x-rewrite-url", b"/health"), (b"x-http-method-override", b"GET"), (b"x-forwarded-prefix", b"/health"),
    ]  # fmt: skip
    assert await status(running.app, "/recommend", "POST", *headers) == 401


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", KEY.encode())],
        [(b"authorization", b"Basic " + KEY.encode())],
        [bearer("")],
        [api_key("")],
        [bearer("wrong-horse-battery")],
        [bearer(KEY[:-1])],
        [bearer(KEY + "x")],
        [bearer(KEY.upper())],
        [bearer(f"shop {KEY}")],
        [bearer("zwölf".encode())],
        [api_key(b"\xff\x00")],
        [bearer("x" * 60_000)],
        [bearer(KEY), bearer(KEY)],
        [bearer(KEY), api_key(KEY)],
        [(b"x-api-key ", KEY.encode())],
        [(b"cookie", b"x-api-key=" + KEY.encode())],
    ],
)
async def test_anything_else_is_401_and_says_how_to_come_in(running, headers, logged):
    reply = await send_raw(running.app, BODY, headers=[*JSON, *headers])
    assert (reply.status, reply.json["code"]) == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["connection"] == "close", "the body was not read"
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert running.recommender.computed == 0
    assert KEY not in json.dumps(logged, default=repr)


async def test_a_key_in_the_query_is_none(running):
    reply = await running.client.get("/info", params={"api_key": KEY, "key": KEY, "token": KEY})
    assert reply.status_code == 401


async def test_the_log_names_the_key_by_its_label_and_never_itself(running, logged):
    logged.clear()
    await send_raw(running.app, BODY, headers=[*JSON, bearer(KEY)])
    await send_raw(running.app, BODY, headers=[*JSON, bearer(OTHER)])
    requests = [event for event in logged if event["event"] == "request"]
    assert [event.get("key") for event in requests] == ["shop", None]


async def test_a_key_is_in_no_log_no_metric_and_no_answer(running, logged, monkeypatch):
    given = [*JSON, bearer(KEY), (b"x-user", b"canary-user")]
    replies = [
        await send_raw(running.app, body, path=path, headers=headers)
        for path, body, headers in [
            ("/recommend", BODY, given),
            ("/recommend", b'{"history": 1}', given),
            ("/recommend", b'{"history": ["%s"]}' % BREAKS.encode(), given),
            ("/recommend", BODY, [*JSON, bearer(KEY + "x")]),
            ("/nope", BODY, given),
            ("/recommend", KEY.encode(), given),
        ]
    ]
    monkeypatch.setattr("service.routes.recommend.to_answer", lambda *_: 1 / 0)
    replies.append(await send_raw(running.app, BODY, headers=given))
    assert [reply.status for reply in replies] == [200, 422, 500, 401, 404, 400, 500]
    said = json.dumps(logged, default=repr) + "".join(map(repr, replies)) + repr(running.app.state.service)
    for path in ("/metrics", "/info", "/openapi.json"):
        said += (await running.client.get(path, headers={"x-api-key": KEY})).text
    assert KEY not in said
    assert "canary-user" not in said


@pytest.mark.parametrize("ui", ["on", "open", "off"])
async def test_the_pages_of_the_playground_are_public_only_if_that_is_asked_for(keys, ui):
    async with serving(api_keys_file=keys, ui=ui) as running:
        for name in read_assets():
            assert await status(running.app, f"/ui/{name}") == (200 if ui == "open" else 401)
            assert await status(running.app, f"/ui/{name}", "POST") == 401
        for path in ("/ui/nope", "/ui/../recommend", "/ui//", "/UI/", "/info", "/v1/items"):
            assert await status(running.app, path) == 401


@pytest.mark.parametrize(("with_keys", "without_token"), [(True, 401), (False, 200)])
async def test_metrics_have_a_token_of_their_own_if_they_are_given_one(tmp_path, keys, with_keys, without_token):
    (tmp_path / "metrics").write_text(METRICS_TOKEN)
    settings = {"metrics_token_file": tmp_path / "metrics", **({"api_keys_file": keys} if with_keys else {})}
    async with serving(**settings) as running:
        assert await status(running.app, "/metrics") == 401
        assert await status(running.app, "/metrics", "GET", bearer(METRICS_TOKEN)) == 200
        assert await status(running.app, "/metrics", "GET", bearer(KEY)) == (200 if with_keys else 401)
        assert await status(running.app, "/info", "GET", bearer(METRICS_TOKEN)) == without_token
        assert await status(running.app, "/info") == without_token


async def test_ten_wrong_tokens_a_minute_are_401_and_more_are_429(running):
    async def wrong() -> tuple[int, str | None]:
        reply = await send_raw(running.app, BODY, headers=[*JSON, bearer("wrong-horse-battery")])
        return reply.status, reply.headers.get("retry-after")

    assert [await wrong() for _ in range(10)] == [(401, None)] * 10
    code, retry_after = await wrong()
    assert (code, 50 < int(retry_after) <= 60) == (429, True)
    assert await status(running.app, "/recommend", "POST") == 401, "no token is no guess"
    assert (await send_raw(running.app, BODY, headers=[*JSON, bearer(KEY)])).status == 200, (
        "whoever has a key is let in"
    )
    assert await status(running.app, "/health", "GET", bearer("wrong-horse-battery")) == 200


async def test_both_listeners_count_together(tmp_path, keys):
    (tmp_path / "admin").write_text(ADMIN_TOKEN)
    settings = {"state_dir": tmp_path / "state", "admin_listen": "0", "admin_token_file": tmp_path / "admin"}
    async with serving(api_keys_file=keys, **settings) as running:
        state = running.app.state.service
        admin = create_admin_app(state, state.access.admin)
        for _ in range(5):
            assert await status(running.app, "/info", "GET", bearer(ADMIN_TOKEN)) == 401, "not a key"
            assert await status(admin, "/admin/catalog", "GET", bearer(KEY)) == 401, "not an administrator's token"
        assert await status(running.app, "/info", "GET", bearer(ADMIN_TOKEN)) == 429
        assert await status(admin, "/admin/catalog", "GET", bearer(KEY)) == 429
        assert await status(admin, "/admin/catalog", "GET", bearer(ADMIN_TOKEN)) == 200


def test_wrong_tokens_are_forgotten_after_a_minute_and_quiet_peers_when_there_are_many():
    now = 0.0
    attempts = Attempts(allowed=2, window_s=60, max_peers=3, clock=lambda: now)
    assert [attempts.another("a") for _ in range(3)] == [0, 0, 60]
    now = 30.0
    assert (attempts.another("a"), attempts.another("b")) == (30, 0)
    now = 60.0
    assert [attempts.another("a") for _ in range(3)] == [0, 0, 60], "refused ones prolong nothing"
    for number in range(10_000):
        attempts.another(f"peer {number}")
    assert len(attempts._wrong) == 3
    assert attempts.another("a") == 0


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::"),
        ("testclient", "testclient"),
    ],
)
def test_a_peer_is_an_address_or_the_network_that_one_host_has_to_itself(host, peer):
    assert peer_of({"client": (host, 1)}) == peer


def test_a_peer_without_an_address_is_one_too():
    assert peer_of({"client": None}) == peer_of({}) == ""


async def test_a_key_is_replaced_without_a_restart(running, keys, monkeypatch):
    monkeypatch.setattr("service.access.REFRESH_S", 0.01)
    async with serving(api_keys_file=keys) as running:
        assert await status(running.app, "/info", "GET", bearer(OTHER)) == 200
        beside = keys.with_name("new")
        beside.write_text(f"shop {KEY}\na-third-one-entirely\n")
        beside.replace(keys)
        tokens = running.app.state.service.access.keys
        await eventually(lambda: tokens.tokens.accept(b"a-third-one-entirely"))
        assert await status(running.app, "/info", "GET", bearer(OTHER)) == 401
        assert await status(running.app, "/info", "GET", bearer(KEY)) == 200


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", None])
async def test_a_damaged_file_keeps_the_old_keys_and_says_so_once(keys, content, logged):
    tokens = TokenFile(keys)
    keys.write_bytes(content) if content is not None else keys.unlink()
    tokens.refresh()
    tokens.refresh()
    assert tokens.tokens.label_of(KEY.encode()) == "shop"
    assert [event["log_level"] for event in logged] == ["error"]
    assert KEY not in repr(logged)
    keys.write_text(OTHER)
    tokens.refresh()
    assert not tokens.tokens.accept(KEY.encode())


async def test_nothing_is_watched_where_there_are_no_files():
    await asyncio.wait_for(Access().keep_fresh(), 1)


@pytest.mark.parametrize("name", ["api_keys_file", "metrics_token_file"])
def test_a_file_that_protects_nothing_stops_the_start(tmp_path, name):
    (tmp_path / "empty").touch()
    for file in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(InputError, match="token file"):
            create_app(some_settings(**{name: file}))


async def test_without_keys_everything_is_open_but_what_has_its_own():
    doors = Doors.of_main(Access(), some_settings())
    assert doors.openers("POST", "/recommend") == []


async def test_where_keys_are_needed_the_first_line_to_try_says_so(keys, logged):
    async with serving(api_keys_file=keys):
        await eventually(lambda: any(event["event"].startswith("try:") for event in logged))
    [line] = [event["event"] for event in logged if event["event"].startswith("try:")]
    assert '-H "x-api-key: $KEY"' in line


async def test_ten_thousand_paths_and_ids_add_no_series(running):
    given = [*JSON, bearer(KEY)]

    async def names() -> set[str]:
        text = (await running.client.get("/metrics", headers={"x-api-key": KEY})).text
        return {line.rpartition(" ")[0] for line in text.splitlines()}

    for path, method in [("/nope", "GET"), ("/nope", "POST"), ("/v1/items/nope", "GET")]:
        await send_raw(running.app, b"", path=path, method=method, headers=given)
        await send_raw(running.app, b"", path=path, method=method, headers=[])
    await send_raw(running.app, BODY, headers=given)
    await send_raw(running.app, b"", path="/ui/nope", method="GET", headers=given)
    await eventually(lambda: running.app.state.service.inference.state == "ready")
    await asyncio.sleep(0.05)  # it announces itself
    await names()
    before = await names()
    for number in range(2_500):
        for path in (f"/{number}", f"/v1/items/{number}x", f"/ui/{number}"):
            await send_raw(running.app, b"", path=path, method="GET", headers=given)
        await send_raw(running.app, b"", path=f"/{number}", method="POST", headers=[])
    assert await names() - before == set()
