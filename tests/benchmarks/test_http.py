import asyncio
import json
from collections.abc import Awaitable, Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.http import Seen, at_bounds, differs, draw, histories, overhead
from benchmarks.sender import Job, Result, Sender

TIMING = {"queue": 1.0, "encode": 2.0, "decode": 5.0, "total": 9.0}
ANSWER = {"items": [{"item_id": "7", "score": -1.0}], "timing_ms": TIMING}


async def sent(job: dict, answer: Callable[[int], Awaitable[bytes]]) -> Result:
    """The result of a job sent to a server that gives these bytes to its n-th request."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                assert json.loads(await reader.readexactly(length)) == {"history": ["1"]}
                count += 1
                if reply := await answer(count):
                    half = len(reply) // 2
                    writer.write(reply[:half])
                    await writer.drain()
                    await asyncio.sleep(0)
                    writer.write(reply[half:])
                else:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        job = {"url": f"http://127.0.0.1:{port}", "bodies": ['{"history": ["1"]}'], "seconds": 0.2, **job}
        return await Sender(Job(**job)).run()


def reply(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def answered(_: int) -> bytes:
    await asyncio.sleep(0.01)
    return reply(200, ANSWER)


def test_clients_of_a_closed_loop_wait_for_their_answers():
    result = asyncio.run(sent({"clients": 2}, answered))
    assert 10 <= len(result.statuses) <= 42
    assert set(result.statuses) == {200}
    assert min(result.milliseconds) >= 10
    assert result.answers[0] == {"items": ["7"], "scores": [-1.0], "timing_ms": TIMING}
    assert 0 < result.cpu_s < result.wall_s


def test_an_open_loop_sends_on_schedule_whatever_the_service_does_and_counts_from_then():
    async def stuck(number: int) -> bytes:
        await asyncio.sleep(0.4 if number == 1 else 0.0)
        return reply(200, ANSWER)

    result = asyncio.run(sent({"rate": 200.0}, stuck))
    assert 20 <= len(result.statuses) <= 70
    assert max(result.milliseconds) >= 400
    assert sorted(result.milliseconds)[-2] < 400  # the others did not wait for it


def test_refusals_and_lost_connections_are_counted_and_the_next_request_takes_another_connection():
    async def fickle(number: int) -> bytes:
        await asyncio.sleep(0.01)
        return {0: b"", 1: reply(429, {})}.get(number % 3, reply(200, ANSWER))

    result = asyncio.run(sent({"clients": 1}, fickle))
    assert result.statuses[:6] == [429, 200, 0, 429, 200, 0]
    assert [bool(answer) for answer in result.answers[:3]] == [False, True, False]


def seen(offered: float | None, milliseconds: list[float], statuses: list[int] | None = None) -> Seen:
    statuses = statuses or [200] * len(milliseconds)
    answers = [{"items": [], "scores": [], "timing_ms": TIMING} if status == 200 else None for status in statuses]
    count = len(milliseconds)
    return Seen("x", offered, Result([0] * count, milliseconds, [0.0] * count, statuses, answers, 2.0, 0.5), 1.0, 0)


def test_a_bound_is_held_by_runs_that_refused_nothing():
    runs = [
        seen(None, [1.0] * 1_000),  # a closed loop does not count
        seen(5, [10.0] * 10),
        seen(10, [90.0] * 20),
        seen(20, [30.0] * 40, [429] + [200] * 39),
    ]
    assert [row["answers/s"] for row in at_bounds(runs)] == [5.0, 10.0, 10.0]
    assert [row["answers/s"] for row in at_bounds(runs[:1])] == [None] * 3


def test_the_row_splits_the_time_of_answers():
    row = seen(10, [12.0, 14.0, 0.1], [200, 200, 429]).row()
    assert (row["429"], row["failed"], row["answers/s"]) == (1, 0, 1.0)
    assert row["beside p50 ms"] == 13.0 - 8.0
    assert row["server cpu ms"] == pytest.approx(1_000 / 3)
    parts = {part["one client, p50 ms"]: part[""] for part in overhead(seen(None, [12.0, 12.0]))}
    assert parts["all but encode and decode"] == 12.0 - 7.0


@pytest.mark.parametrize(
    ("items", "scores", "wrong"),
    [
        (["7", "8"], [-1.0, -2.0], False),
        (["8", "7"], [-2.00001, -1.0], False),
        (["7", "8"], [-1.0, -2.001], True),
        (["7", "9"], [-1.0, -2.0], True),
        (["7"], [-1.0], True),
        (["7", "8"], [-1.0, None], True),
    ],
)
def test_an_answer_is_held_against_the_lone_clients(items, scores, wrong):
    reference = {0: {"7": -1.0, "8": -2.0}}
    assert differs(reference, 0, {"items": items, "scores": scores}) is wrong


def test_histories_are_those_of_users_without_the_test_item(tmp_path):
    file = tmp_path / "interactions.parquet"
    rows = {
        "user_id": ["a", "a", "b", "b"],
        "item_id": ["1", "2", "3", "4"],
        "split": ["train", "test", "train", "test"],
    }
    pq.write_table(pa.table(rows), file)
    assert sorted(histories(file, [], 5)) == [["1"], ["3"]]
    assert len(histories(tmp_path / "none", [str(number) for number in range(30)], 4)) == 4


def test_the_picture_is_drawn(tmp_path):
    draw([seen(None, [1.0]), seen(5, [10.0]), seen(10, [20.0])], tmp_path / "images" / "http.png")
    assert (tmp_path / "images" / "http.png").read_bytes().startswith(b"\x89PNG")
