"""A service is started, stopped, killed and broken, as real processes: what was admitted is answered, and how it ends.

The batches of one request and of eight that the tests ask for are made with the gate of `faulty_server`, so that they
wait on events and not on luck.
"""

import asyncio
import json
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.client import Client, Retries
from tests.system.faulty import Faulty, administered, begun_faulty, behind_the_gate, faulty, in_one_batch, run
from tests.system.faulty_server import Faults
from tests.system.pair import HISTORIES, REQUESTS, K, Pair
from tests.system.server import Process
from tests.system.wire import Line, Lines, Reply

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

NUM_CLIENTS = 32


# --- a stop under load ------------------------------------------------------------------------------------------------


async def clients_until_the_end(server: Faulty) -> list[tuple[int, Reply]]:
    """Clients that ask until nobody listens any more; meanwhile the service is told to stop."""
    lines, replies = Lines(server.port), []

    async def client(number: int) -> None:
        while True:
            which = number % len(REQUESTS)
            reply = await lines.ask(REQUESTS[which])
            replies.append((which, reply))
            if reply.status == 0:
                return
            number += 1

    clients = [asyncio.create_task(client(number)) for number in range(NUM_CLIENTS)]
    await lines.until("genrec_queue_depth", NUM_CLIENTS)
    await asyncio.sleep(random.uniform(0.0, 0.2))
    server.process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    lines.close()
    return replies


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(400)])])
def test_a_stop_with_32_clients_in_flight_loses_no_request_that_was_admitted(
    pair: Pair, tmp_path: Path, times: int
) -> None:
    for number in range(times):
        (directory := tmp_path / str(number)).mkdir()
        with faulty(pair, directory, GENREC_DRAIN_DELAY_MS="300", GENREC_MAX_BATCH_ROWS="60") as server:
            server.fault(delay_s=0.01)
            replies = run(clients_until_the_end(server))
            assert server.process.wait(30) == 0
            assert {reply.status for _, reply in replies} <= {200, 503, 0}
            assert not [reply for _, reply in replies if reply.torn], "no reply ends in its middle"
            answered = [(which, reply) for which, reply in replies if reply.status == 200]
            assert len(answered) >= NUM_CLIENTS
            assert all(pair.right(reply, which) for which, reply in answered)
            # What came to the application at all came back: each line of the log is a reply that a client has.
            seen = Counter(line["status"] for line in server.logged("request") if line["route"] == "/recommend")
            assert seen == Counter(reply.status for _, reply in replies if reply.status)


def test_it_says_that_it_stops_and_listens_on_for_the_delay(pair: Pair, tmp_path: Path) -> None:
    with faulty(pair, tmp_path, GENREC_DRAIN_DELAY_MS="1500") as server:
        assert server.get("/ready").status_code == 200
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        while server.get("/ready").status_code == 200:
            assert time.monotonic() < told + 1.0
        reply = run(one(server))
        assert pair.right(reply, 0)
        assert b"connection: close" in reply.head.lower(), "a client that keeps connections is to go elsewhere"
        assert server.get("/health").status_code == 200
        assert server.process.wait(10) == 0
        assert time.monotonic() > told + 1.4


async def one(server: Faulty) -> Reply:
    return await Lines(server.port).ask(REQUESTS[0])


def test_a_second_signal_does_not_wait_for_the_delay(pair: Pair, tmp_path: Path) -> None:
    with faulty(pair, tmp_path, GENREC_DRAIN_DELAY_MS="60000") as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0


def test_open_connections_on_which_nothing_is_asked_do_not_hold_it(pair: Pair, tmp_path: Path) -> None:
    with faulty(pair, tmp_path) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for connection in idle[:25]:  # these have had an answer
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200 OK" in connection.recv(4096)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert children == [], "there is nobody to be left behind"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        for connection in idle:
            connection.close()


def test_a_stop_while_it_loads_is_a_stop(pair: Pair, tmp_path: Path) -> None:
    variables = administered(tmp_path)
    Faults(loads_s=60).write(tmp_path / "faults.json")
    process = begun_faulty(pair.a, log=tmp_path / "log", **variables)
    try:
        until(lambda: '"loading"' in (tmp_path / "log").read_text(), 60)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def test_a_stop_while_a_bundle_is_reloaded_is_a_stop_and_nothing_has_changed(pair: Pair, tmp_path: Path) -> None:
    with faulty(pair, tmp_path) as server:
        server.fault(loads_s=60)
        waiting, replies = later(lambda: server.reload("b").status_code)
        time.sleep(0.5)
        assert pair.right(server.ask(1), 1), "it answers meanwhile"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        waiting.join(5)
        assert replies == [503]
    assert not (tmp_path / "state" / "bundle").exists()


@pytest.mark.parametrize("times", [2, pytest.param(8, marks=pytest.mark.soak)])
def test_a_stop_at_any_moment_of_a_real_reload_ends_with_0(pair: Pair, tmp_path: Path, times: int) -> None:
    dice = random.Random(times)
    for number in range(times):
        (directory := tmp_path / str(number)).mkdir()
        with faulty(pair, directory) as server:
            waiting, _ = later(lambda server=server: server.reload("b"))
            time.sleep(dice.uniform(0.0, 0.15))
            assert server.stop() == 0, server.log.read_text()
            waiting.join(5)


# --- an engine that is lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["dies", "hangs", "lost"])
def test_an_engine_that_is_gone_is_told_within_two_seconds_and_ends_the_process(
    pair: Pair, tmp_path: Path, fault: str
) -> None:
    with faulty(pair, tmp_path, GENREC_WATCHDOG_TIMEOUT_MS="2500") as server:
        server.fault(**{fault: True})
        waiting, replies = later(lambda: server.ask(0), lambda: server.ask(1))
        began = time.monotonic()
        not_ready = None
        while server.process.poll() is None and time.monotonic() < began + 15:
            try:
                ready = server.get("/ready").status_code
            except httpx.TransportError:  # it has ended
                break
            if ready == 503 and not_ready is None:
                not_ready = time.monotonic() - began
        waiting.join(10)
        assert not_ready is not None
        assert not_ready < 2.0
        assert server.process.wait(10) == 70
        assert [reply.status for reply in replies] == [503, 503]
        assert all(reply.json["code"] == "not_ready" for reply in replies)
        assert "0xdeadbeef" not in json.dumps([reply.json for reply in replies])
        assert server.logged("the service ends")


# --- killed, and started again ----------------------------------------------------------------------------------------


@contextmanager
def supervised(pair: Pair, directory: Path, port: int) -> Iterator[list[Process]]:
    """As Compose does with `restart`: whenever the service ends, it is started again."""
    variables, lives, over = administered(directory), [], threading.Event()

    def start() -> None:
        log = directory / f"log{len(lives)}"
        lives.append(begun_faulty(pair.a, "--port", str(port), log=log, **variables))

    def watch() -> None:
        while not over.is_set():
            if lives[-1].poll() is not None:
                start()
            time.sleep(0.05)

    start()
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lives
    finally:
        over.set()
        watching.join()
        for process in lives:
            process.kill()
            process.wait()


def test_a_service_that_is_killed_is_started_again_and_its_clients_never_know(pair: Pair, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop, failures, asked = threading.Event(), [], Counter()

    def client(number: int) -> None:
        with Client(f"http://127.0.0.1:{port}", timeout_s=60, retries=Retries(times=1000, cap_s=0.5)) as service:
            while not stop.is_set():
                which = asked.total() % len(HISTORIES)
                answer = service.recommend(HISTORIES[which], k=K)
                if [item.item_id for item in answer.items] != pair.golden[pair.versions["a"]][which]:
                    failures.append(which)
                asked[number] += 1

    def each_has_more(than: Counter[int]) -> bool:
        return all(asked[number] > than[number] for number in range(4))

    with supervised(pair, tmp_path, port) as lives:
        with Client(f"http://127.0.0.1:{port}") as probe:
            probe.wait_until_ready(60)
        clients, errors = later(*[lambda number=number: client(number) for number in range(4)])
        for _ in range(2):
            before, started = Counter(asked), len(lives)
            until(lambda before=before: each_has_more(before), 60)
            lives[-1].kill()
            until(lambda started=started: len(lives) > started, 10)
        before = Counter(asked)
        until(lambda: each_has_more(before), 60)
        stop.set()
        clients.join(60)
    assert (failures, errors) == ([], [None] * 4)


# --- one request that breaks a batch ----------------------------------------------------------------------------------

MARKED = 3


@pytest.fixture(scope="module")
def breakable(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty(pair, tmp_path_factory.mktemp("breakable")) as server:
        yield server
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("fault", "status", "code", "kind"),
    [
        ("too_large", 503, "resource_exhausted", "out_of_memory"),
        ("poisoned", 500, "internal", "other"),
        ("not_finite", 500, "model_output_invalid", "invalid_output"),
    ],
)
def test_of_eight_in_a_batch_the_one_that_breaks_it_fails_alone(
    pair: Pair, breakable: Faulty, fault: str, status: int, code: str, kind: str
) -> None:
    sample = f'genrec_engine_failures_total{{kind="{kind}"}}'
    before = breakable.metric(sample)
    replies = run(in_one_batch(breakable, MARKED, **{fault: ["i39"]}))
    broken = replies.pop(MARKED)
    assert [pair.right(reply, which) for which, reply in zip([0, 1, 2, 4, 5, 6, 7], replies, strict=True)] == [True] * 7
    assert (broken.status, broken.json["code"]) == (status, code)
    assert not {"NaN", "0xdeadbeef", "CUDA"} & set(broken.body.decode().replace('"', " ").split())
    assert breakable.metric(sample) == before + 1
    breakable.fault()
    breakable.well()


def test_a_batch_that_is_too_large_is_answered_in_parts(pair: Pair, breakable: Faulty) -> None:
    replies = run(in_one_batch(breakable, 0, most=3))
    assert [pair.right(reply, which) for which, reply in enumerate(replies) if which] == [True] * 7
    assert replies[0].status == 200
    breakable.fault()
    breakable.well()


def test_a_model_that_answers_nonsense_three_times_in_a_minute_is_not_ready(pair: Pair, tmp_path: Path) -> None:
    with faulty(pair, tmp_path) as server:
        server.fault(not_finite=[HISTORIES[0][0]])
        for number in range(3):
            assert server.get("/ready").status_code == 200, number
            assert server.ask(0).status == 500
        until(lambda: server.get("/ready").status_code == 503, 2)
        assert "suspect" in server.get("/ready").json()["detail"]
        server.fault()
        assert pair.right(server.ask(0), 0), "who asks all the same is answered"


def test_one_of_eight_in_the_models_hands_leaves_and_the_others_never_know(pair: Pair, breakable: Faulty) -> None:
    async def eight_of_whom_one_leaves() -> tuple[list[Reply], float]:
        lines = Lines(breakable.port)
        first, *tasks = await behind_the_gate(breakable, lines, REQUESTS[1:8])
        leaving = await Line.to(breakable.port)
        gone = leaving.send(REQUESTS[8])
        await lines.until("genrec_queue_depth", 9)
        batches = await lines.metric("genrec_batch_size_count")
        breakable.fault(delay_s=0.1)
        await first
        await lines.until("genrec_batch_size_count", batches + 1)
        await asyncio.sleep(0.1)  # the model has the eight
        leaving.leave()
        replies = list(await asyncio.gather(*tasks))
        assert (await gone).status == 0
        await lines.until("genrec_queue_depth", 0, 1)
        taken = await lines.metric("genrec_batch_size_count") - batches
        lines.close()
        return replies, taken

    replies, batches = run(eight_of_whom_one_leaves())
    assert [pair.right(reply, which) for which, reply in enumerate(replies, start=1)] == [True] * 7
    assert batches == 2, "the eight were one batch"
    breakable.fault()
    breakable.well()


# --- tools ------------------------------------------------------------------------------------------------------------


def until(condition: object, within_s: float) -> None:
    end = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def later(*calls: object) -> tuple[threading.Thread, list[object]]:
    """Make calls at once, each in a thread of its own; a thread that waits for all, and what came of each."""
    outcomes: list[object] = [RuntimeError("it has not ended")] * len(calls)

    def make(place: int) -> None:
        try:
            outcomes[place] = calls[place]()  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            outcomes[place] = error

    threads = [threading.Thread(target=make, args=(place,)) for place in range(len(calls))]

    def wait() -> None:
        for one in threads:
            one.join()

    for thread in threads:
        thread.start()
    waiting = threading.Thread(target=wait)
    waiting.start()
    return waiting, outcomes
