"""The door of the admin listener: nothing behind it is reached, or told, without a token."""

import json

import pytest

from service.admin import create_admin_app
from service.tokens import Tokens
from tests.service.fakes import JSON, send_raw, serving

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery"
OTHER = "the-one-that-comes-next"
PATHS = ["/admin/catalog", "/admin", "/", "/recommend", "/health", "/metrics", "/docs", "/openapi.json", "/admin/nope"]


@pytest.fixture
async def running(tmp_path):
    async with serving(state_dir=tmp_path / "state") as service:
        yield service


@pytest.fixture
def admin(running, tmp_path):
    (tmp_path / "tokens").write_text(f"{TOKEN}\n{OTHER}\n")
    return create_admin_app(running.app.state.service, Tokens.read(tmp_path / "tokens"))


def paths_of(app):
    """Every path that an application serves, with its methods."""
    return {(path, method) for path, verbs in app.openapi()["paths"].items() for method in verbs}


def bearer(token: bytes | str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + (token if isinstance(token, bytes) else token.encode())


@pytest.mark.parametrize("token", [TOKEN, OTHER])
async def test_a_right_token_opens(admin, token):
    for given in (bearer(token), (b"authorization", f"bEARER  {token} ".encode())):
        reply = await send_raw(admin, b"", path="/admin/catalog", method="GET", headers=[given])
        assert reply.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", b"Basic " + TOKEN.encode())],
        [(b"x-api-key", TOKEN.encode())],
        [bearer("")],
        [bearer("wrong-horse-battery")],
        [bearer(TOKEN[:-1])],
        [bearer(TOKEN + "x")],
        [bearer(TOKEN.upper())],
        [bearer("zwölf".encode())],
        [bearer(b"\xff\x00")],
        [bearer("x" * 60_000)],
        [bearer(TOKEN), bearer(TOKEN)],
    ],
)
async def test_anything_else_is_401_and_one_sentence(admin, headers, logged):
    replies = [
        await send_raw(admin, b'{"off": ["1"]}', path="/admin/catalog", method=method, headers=[*JSON, *headers])
        for method in ("GET", "POST")
    ]
    for reply in replies:
        assert (reply.status, reply.json["code"]) == (401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["connection"] == "close", "the body was not read"
        assert reply.headers["content-type"] == "application/problem+json"
    assert TOKEN not in json.dumps(logged, default=str)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_no_path_and_no_method_gets_past_the_door(admin, method):
    for path in PATHS:
        assert (await send_raw(admin, b"", path=path, method=method, headers=[])).status == 401


async def test_only_admin_routes_are_behind_the_door_and_none_is_on_the_main_listener(running, admin):
    assert {path for path, _ in paths_of(admin)} == {
        "/admin/catalog", "/admin/bundles", "/admin/reload", "/admin/rollback",
    }  # fmt: skip
    assert [path for path in running.app.openapi()["paths"] if "admin" in path] == []
    for path in PATHS:
        given = [bearer(TOKEN)]
        behind = (await send_raw(admin, b"", path=path, method="GET", headers=given)).status
        assert behind == (200 if path == "/admin/catalog" else 404)
        if "admin" in path:
            assert (await send_raw(running.app, b"", path=path, method="GET", headers=given)).status == 404
            assert (await send_raw(running.app, b"{}", path=path, headers=[*JSON, *given])).status == 404


async def test_a_token_is_in_no_log_and_no_answer(running, admin, logged):
    replies = [
        await send_raw(admin, body, path=path, headers=[*JSON, bearer(TOKEN)])
        for path, body in [("/admin/catalog", b'{"off": ["1"]}'), ("/admin/catalog", b"["), ("/nope", b"{}")]
    ]
    assert [reply.status for reply in replies] == [200, 400, 404]
    said = json.dumps(logged, default=str) + "".join(str(reply) for reply in replies)
    assert TOKEN not in said
    assert TOKEN not in (await running.client.get("/metrics")).text
    assert TOKEN not in repr(running.app.state.service)
