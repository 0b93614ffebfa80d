"""What attackers and broken clients send: always the right 4xx, small, quick, never an echo; rows A1 to A15 of the
reliability matrix that a process can be asked without sockets."""

import gc
import gzip
import json
import random
import re
import resource
import time

import pytest

from tests.service.fakes import JSON, Reply, send_raw, serving

pytestmark = pytest.mark.anyio

MAX_BODY = 256 * 1024
TELLTALE = re.compile(rb"0x[0-9a-f]{6}|Traceback|site-packages|/home|/usr|\.py")


@pytest.fixture
async def running():
    async with serving() as service:
        yield service
        # whatever was sent: the service is as it was
        assert (await service.recommend("1")).status_code == 200
        assert (await service.client.get("/ready")).status_code == 200
        assert service.depth == 0


def problem(reply: Reply, status: int, pointer: str | None = None) -> None:
    assert (reply.status, reply.json["status"]) == (status, status)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["request_id"] == reply.headers["x-request-id"]
    assert len(reply.body) < 2_048
    assert not TELLTALE.search(reply.body)
    if pointer is not None:
        assert reply.json["pointer"] == pointer


NUMBERS = [
    b"0", b"-1", b"-0", b"2147483648", b"9223372036854775808", b"1000000000000000000", b"9" * 5_000,
    b"-" + b"9" * 5_000, b"1.0", b"1.5", b"10.0", b"1e1", b"1e999",
    b"-1e999", b"1E400", b"0.1e-400", b"9" * 400 + b".5", b"true", b"false",
    b'"5"', b'""', b'"ten"', b"[]", b"[5]", b"{}", b'{"$gt": 0}', b"600001",
]  # fmt: skip


@pytest.mark.parametrize("field", ["k", "num_beams", "timeout_ms"])
@pytest.mark.parametrize("literal", NUMBERS, ids=lambda literal: literal[:12].decode())
async def test_a_wrong_number_is_422_at_its_field(running, field, literal):
    reply = await send_raw(running.app, b'{"history": ["1"], "%s": %s}' % (field.encode(), literal))
    problem(reply, 422, f"/{field}")
    assert running.recommender.computed == 0


@pytest.mark.parametrize("field", ["history", "exclude", "fields", "filter"])
@pytest.mark.parametrize(
    "literal", [b"0", b"true", b'"1"', b'{"a": 1}', b"[null]", b"[1]", b"[true]", b"[[]]", b'[{"id": "1"}]']
)
async def test_a_wrong_list_is_422_at_or_in_its_field(running, field, literal):
    reply = await send_raw(running.app, b'{"history": ["1"], "%s": %s}' % (field.encode(), literal))
    if field == "history":
        reply = await send_raw(running.app, b'{"history": %s}' % literal)
    problem(reply, 422)
    assert reply.json["pointer"].startswith(f"/{field}")


@pytest.mark.parametrize("field", ["history", "candidates", "filter", "exclude_history"])
@pytest.mark.parametrize(
    "literal", [b"0", b'"1"', b"null", b'{"a": 1}', b"[null]", b"[1]", b"[true]", b"[[]]", b'["\\u0000"]', b'[""]']
)
async def test_a_wrong_value_of_a_request_to_score_is_422_at_or_in_its_field(running, field, literal):
    fields = {b"history": b'["1"]', b"candidates": b'["2"]', field.encode(): literal}
    body = b"{%s}" % b", ".join(b'"%s": %s' % pair for pair in fields.items())
    reply = await send_raw(running.app, body, path="/v1/score")
    if (field, literal) == ("filter", b"null"):
        assert reply.status == 200
        return
    problem(reply, 422)
    assert reply.json["pointer"].startswith(f"/{field}")
    assert running.recommender.computed == 0


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"[]", b"{", b"}", b'{"history"', b"history=1", b"<xml/>", b"\x00", b"\xff\xfe", b"{}{}",
        b'{"history": ["1"]', b'{"history": ["1"],}', b"{'history': ['1']}", b'{"history": ["1\n"]}',
        b'{"history": ["1"], "k": NaN}', b'{"history": [NaN]}', b'{"history": ["1"], "k": -Infinity}',
        b'{"history": ["1"], "k": 1, "k": 2}', b'{"history": ["\\ud800"]}', b'{"\\ud800": 1}',
        b'{"history": ["\\uDC00a"]}',
        b'{"history": ["\xed\xa0\x80"]}', b'\xef\xbb\xbf{"history": ["1"]}', '{"history": ["1"]}'.encode("utf-16"),
        '{"history": ["1"]}'.encode("utf-32"), '{"history": ["é"]}'.encode("latin-1"), b'{"history": ["\\x41"]}',
        b'{"history": ["1"], "k": 0x10}', b'{"history": ["1"], "k": 1_000}', b'{"history": ["1"]} // comment',
    ],
    ids=repr,
)  # fmt: skip
async def test_what_is_not_a_json_object_is_refused(running, body):
    for path in ("/recommend", "/v1/score"):
        problem(await send_raw(running.app, body, path=path), 422 if body in (b"null", b"[]") else 400)


@pytest.mark.parametrize("item_id", ["", "\x00", "a\x00b", "\x1b[31m", "\n", "x" * 513])
async def test_an_id_that_cannot_be_one_is_422(running, item_id):
    body = json.dumps({"history": ["1", item_id]}).encode()
    problem(await send_raw(running.app, body), 422, "/history/1")


@pytest.mark.parametrize("levels", [33, 1_000, 10_000, 100_000])
@pytest.mark.parametrize("unit", [b"[", b'{"a":'])
async def test_deep_json_is_400_and_quick(running, levels, unit):
    for body in (unit * levels, b'{"history": ["1"], "x": ' + unit * levels):
        begin = time.thread_time()
        problem(await send_raw(running.app, body[:MAX_BODY]), 400)
        assert time.thread_time() - begin < 1


async def test_deep_json_a_hundred_times_leaves_no_memory_behind(running):
    body = b"[" * MAX_BODY
    await send_raw(running.app, body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        problem(await send_raw(running.app, body), 400)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024  # KiB


async def test_a_body_over_the_limit_is_413_whether_it_says_so_or_not(running):
    chunk = b" " * 65_536
    declared = [*JSON, (b"content-length", str(2 * MAX_BODY).encode())]
    read = 0

    def chunks():
        nonlocal read
        for _ in range(100):
            read += 1
            yield chunk

    problem(await send_raw(running.app, b"{}", headers=declared), 413)
    problem(await send_raw(running.app, chunks()), 413)
    assert read == MAX_BODY // len(chunk) + 1, "what is over the limit is not even read"
    problem(await send_raw(running.app, [b"{}"], headers=[*JSON, (b"content-length", b"9" * 400)]), 413)
    lying = [*JSON, (b"content-length", b"2")]
    reply = await send_raw(running.app, [chunk] * 8, headers=lying)
    problem(reply, 413)
    assert reply.headers["connection"] == "close"


async def test_a_body_at_the_limit_is_read(running):
    body = b'{"history": ["1"]}'
    assert (await send_raw(running.app, body + b" " * (MAX_BODY - len(body)))).status == 200


@pytest.mark.parametrize("element", [b'"x"', b"1", b"[]", b'{"item_id":"x"}', b'{"a":1}', b'""'])
async def test_the_longest_lists_are_answered_quickly(running, element):
    body = b'{"history": [%s]}' % b",".join([element] * (MAX_BODY // (len(element) + 1) - 20))
    gc.collect()
    gc.freeze()  # as the serve command does
    for path in ("/recommend", "/v1/recommend/batch", "/v1/score"):
        begin = time.thread_time()
        problem(await send_raw(running.app, body, path=path), 422)
        assert time.thread_time() - begin < 5
    gc.unfreeze()


@pytest.mark.parametrize("element", [b'"x"', b"1", b"[]", b'""'])
async def test_the_longest_lists_of_candidates_are_answered_quickly(running, element):
    body = b'{"history": ["1"], "candidates": [%s]}' % b",".join([element] * (MAX_BODY // (len(element) + 1) - 20))
    begin = time.thread_time()
    problem(await send_raw(running.app, body, path="/v1/score"), 422)
    assert time.thread_time() - begin < 5


async def test_a_million_bytes_of_history_are_413(running):
    problem(await send_raw(running.app, json.dumps({"history": ["x" * 10] * 80_000}).encode()), 413)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"content-encoding", b"gzip"),
        (b"content-encoding", b"deflate, gzip"),
        (b"content-encoding", b"br"),
        (b"content-type", b"text/plain"),
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-type", b"application/json; charset=utf-16"),
        (b"content-type", b"application/json; charset=latin-1"),
        (b"content-type", b"application/vnd.api+json"),
        (b"content-type", b""),
        (b"content-type", b"\xff"),
    ],
)
async def test_other_media_are_415(running, name, value):
    headers = [(name, value)] if name == b"content-type" else [*JSON, (name, value)]
    bomb = gzip.compress(b" " * 10_000_000)
    problem(await send_raw(running.app, bomb, headers=headers), 415)


async def test_a_body_without_a_type_is_415(running):
    problem(await send_raw(running.app, b'{"history": ["1"]}', headers=[]), 415)


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"Application/JSON", b"application/json; charset=UTF-8", b'application/json;charset="utf-8"'],
)
async def test_json_in_utf8_is_read_however_it_is_declared(running, content_type):
    headers = [(b"content-type", content_type), (b"content-encoding", b"identity")]
    assert (await send_raw(running.app, b'{"history": ["1"]}', headers=headers)).status == 200


NOT = b'{"not": '
HOSTILE_WHERES = [
    b'{"yaer": {"gte": 1}}', b'{"__proto__": {"gte": 1}}', b'{"year": {"$where": "sleep(1)"}}', b'{"year": null}',
    b'{"year": 1990}', b'{"year": []}', b'{"year": {}}', b'{"year": {"gte": "1990"}}', b'{"year": {"gte": 1e999}}',
    b'{"year": {"gte": %s}}' % (b"9" * 5000), b'{"year": {"in": {}}}', b'{"year": {"in": [[1]]}}',
    b'{"year": {"gte": true}}', b'{"title": {"eq": 1}}', b'{"genres": {"eq": "Drama"}}',
    b'{"genres": {"any_of": [null]}}',
    b'{"and": {}}', b'{"or": []}', b'{"not": []}', b'{"and": [null]}', b'{"and": [1, 2]}', b'{"": {"eq": 1}}',
    b'{"not": {"eq": 1}}', NOT * 25 + b"{}" + b"}" * 25, b"[]", b'"x"', b"5", b"true",
    b'{"year": {"in": [%s]}}' % b",".join([b"%d" % number for number in range(10_001)]),
    b'{"or": [%s]}' % b",".join([b'{"year": {"gte": %d}}' % number for number in range(1_000)]),
    b'{"or": [%s]}' % b",".join([b"{}"] * 40_000 + [b"1"]),
    b'{"title": {"in": [%s]}}' % b",".join([b'"%d"' % number for number in range(20_000)]),
    b'{%s}' % b",".join([b'"c%d": {"eq": 1}' % number for number in range(10_000)]),
]  # fmt: skip


@pytest.mark.parametrize("where", HOSTILE_WHERES, ids=lambda where: where[:24].decode())
@pytest.mark.parametrize("path", ["/recommend", "/v1/recommend/batch"])
async def test_a_filter_that_cannot_be_asked_is_422_within_the_filter(running, where, path):
    body = b'{"history": ["1"], "filter": {"where": %s}}' % where
    body = body if path == "/recommend" else b'{"requests": [%s]}' % body
    begin = time.thread_time()
    reply = await send_raw(running.app, body, path=path)
    assert time.thread_time() - begin < 1
    refused = reply.json
    if path == "/recommend":
        problem(reply, 422)
    else:
        [refused] = reply.json["results"]
    assert (refused["status"], refused["code"]) == (422, "invalid_request")
    assert refused["pointer"].startswith("/filter/where")
    assert running.recommender.computed == 0


async def test_the_largest_filters_are_answered_quickly(running):
    years = b",".join([b"%d" % number for number in range(10_000)])
    ids = b",".join([b'"%d"' % number for number in range(10_000)])
    deep = NOT * 16 + b'{"year": {"in": [%s]}}' % years + b"}" * 16
    for body in (b'"where": ' + deep, b'"include_ids": [%s]' % ids):
        begin = time.thread_time()
        reply = await send_raw(running.app, b'{"history": ["1"], "filter": {%s}}' % body)
        assert time.thread_time() - begin < 1
        assert reply.status == 200
        assert len(reply.json["items"]) > 5


SEEDS = [
    b'{"history": ["1"], "filter": {"include_ids": ["1", "2", "3"], "where": {"year": {"gte": 1980, "lte": 1990}, '
    b'"or": [{"title": {"in": ["Ran"]}}, {"not": {"genres": {"any_of": ["Drama"]}}}]}}}',
    b'{"history": ["1", {"item_id": "2", "event": "rating"}], "k": 10, "exclude_history": true, "exclude": ["3"], '
    b'"fields": ["title"], "num_beams": null, "fallback": "popular", "request_id": null, "timeout_ms": 5000}',
    b'{"history": [], "k": 1}',
    '{"history": ["é🎬", "films/alien?"], "fields": []}'.encode(),
    b'{"history": ["1", {"item_id": "2"}], "candidates": ["3", "4", "nowhere"], "exclude_history": true, '
    b'"filter": {"include_ids": ["3"]}}',
]
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\xff", b"\\ud800", b"\\u0000", b"NaN", b"-Infinity",
    b"1e999", b"9" * 50, b"-", b"null", b"true", b'"k"', b'"history"', b"[" * 40, b'{"item_id":', b"\xef\xbb\xbf",
    b".5",
]  # fmt: skip


def mutated(chance: random.Random) -> bytes:
    body = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(body) + 1)
        match chance.randrange(5):
            case 0:
                body[place:place] = chance.choice(PIECES)
            case 1:
                del body[place : place + chance.randint(1, 8)]
            case 2:
                body[place:place] = body[chance.randrange(len(body) + 1) :][:20]
            case 3:
                body[place : place + 1] = bytes([chance.randrange(256)])
            case _:
                body[place : place + chance.randint(1, 4)] = chance.choice(PIECES)
    return bytes(body)


async def send_mutated(count: int, seed: int) -> dict[int, int]:
    chance = random.Random(seed)
    seen: dict[int, int] = {}
    async with serving() as running:
        for number in range(count):
            body = mutated(chance)
            begin = time.thread_time()
            path = "/v1/score" if b"candidates" in body else "/recommend" if number % 4 else "/v1/recommend/batch"
            reply = await send_raw(running.app, body, path=path)
            assert time.thread_time() - begin < 1, body
            assert reply.status in (200, 400, 415, 422), (reply.status, body)
            if reply.status != 200:
                problem(reply, reply.status)
            else:
                assert reply.json
            seen[reply.status] = seen.get(reply.status, 0) + 1
        assert running.depth == 0
    return seen


async def test_ten_thousand_mutated_bodies_give_no_5xx():
    seen = await send_mutated(10_000, seed=1)
    assert sum(seen.values()) == 10_000
    assert set(seen) >= {200, 400, 422}
