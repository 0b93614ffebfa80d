"""The one thread: its bound, its deadlines, its failures. Each waits on events, never on luck."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from genrec.answers import Answer
from genrec.errors import BundleError, EngineError, GenrecError
from genrec.recommender import Recommender
from genrec.requests import Request
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.inference import InferenceThread
from tests.service.fakes import BREAKS, KILLS, UNANSWERABLE, FakeRecommender, eventually

pytestmark = pytest.mark.anyio

KNOWN = Request(["1"])


def attempt(recommender: Recommender, requests: Sequence[Request]) -> Sequence[Answer | EngineError]:
    return recommender.attempt(requests)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


class Started:
    """A started thread around a fake, ended at the end of the test."""

    def __init__(self, **settings: float) -> None:
        self.recommender = FakeRecommender()
        self.thread = InferenceThread(
            lambda: cast(Recommender, self.recommender),
            **{"max_queue_requests": 4, **settings},  # type: ignore[arg-type]
        )

    async def __aenter__(self) -> "Started":
        self.thread.start()
        await asyncio.wrap_future(self.thread.loaded)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.recommender.gate.set()
        self.thread.stop(5.0)

    def submit(self, *requests: Request, deadline: float | None = None) -> "asyncio.Task[list[object]]":
        return asyncio.create_task(self._outcomes(requests, deadline))

    async def _outcomes(self, requests: tuple[Request, ...], deadline: float | None) -> list[object]:
        return [served.outcome for served in await self.thread.submit(attempt, requests, deadline or soon())]

    async def busy(self) -> None:
        """Close the gate and have one request computed behind it."""
        self.recommender.gate.clear()
        self.first = self.submit(KNOWN)
        await eventually(self.recommender.entered.is_set)


async def test_requests_are_answered_in_order_in_the_one_thread():
    async with Started(max_queue_requests=100) as started:
        tasks = [started.submit(Request(["1"], k=k)) for k in range(1, 11)]
        answers = [cast(Answer, (await task)[0]) for task in tasks]
    assert [len(answer.items) for answer in answers] == list(range(1, 11))
    assert [call[0].k for call in started.recommender.asked] == list(range(1, 11))
    assert started.recommender.threads == {"inference"}


async def test_the_bound_counts_requests_and_refuses_exactly_the_next():
    async with Started(max_queue_requests=4) as started:
        await started.busy()
        waiting = [started.submit(KNOWN) for _ in range(3)]
        await eventually(lambda: started.thread.depth == 4)
        for _ in range(3):
            with pytest.raises(Overloaded):
                await started.thread.submit(attempt, [KNOWN], soon())
        started.recommender.gate.set()
        outcomes = await asyncio.gather(started.first, *waiting)
        assert [type(outcome) for (outcome,) in outcomes] == [Answer] * 4
        await eventually(lambda: started.thread.depth == 0)


async def test_a_batch_costs_its_requests_and_is_admitted_whole_or_not_at_all():
    async with Started(max_queue_requests=4) as started:
        await started.busy()
        with pytest.raises(Overloaded):
            await started.thread.submit(attempt, [KNOWN] * 4, soon())
        assert started.thread.depth == 1
        batch = started.submit(*[KNOWN] * 3)
        await eventually(lambda: started.thread.depth == 4)
        started.recommender.gate.set()
        assert len(await batch) == 3


async def test_a_large_batch_reaches_the_model_in_slices():
    async with Started(max_queue_requests=10, max_inference_requests=3) as started:
        assert len(await started.submit(*[Request(["1"], k=k) for k in range(1, 9)])) == 8
    assert [[request.k for request in call] for call in started.recommender.asked] == [[1, 2, 3], [4, 5, 6], [7, 8]]


async def test_a_request_whose_deadline_passes_in_the_queue_is_told_at_once_and_never_computed():
    async with Started() as started:
        await started.busy()
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await started.thread.submit(attempt, [KNOWN], soon(0.05))
        assert time.monotonic() - begin < 0.5
        await eventually(lambda: started.thread.depth == 1)
        started.recommender.gate.set()
        await started.first
        await started.submit(KNOWN)
    assert started.recommender.computed == 2


async def test_a_deadline_that_has_passed_is_seen_by_the_thread_too():
    async with Started(max_inference_requests=1) as started:
        started.recommender.gate.clear()
        batch = started.submit(KNOWN, KNOWN, deadline=soon(0.05))
        with pytest.raises(DeadlineExceeded):
            await batch
        started.recommender.gate.set()
        await eventually(lambda: started.thread.depth == 0)
    assert started.recommender.computed == 1, "the second slice of a batch that is too late is not computed"


async def test_a_cancelled_caller_frees_its_place_and_is_never_computed():
    async with Started(max_queue_requests=2) as started:
        await started.busy()
        leaving = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 2)
        leaving.cancel()
        await eventually(lambda: started.thread.depth == 1)
        staying = started.submit(Request(["2"]))
        started.recommender.gate.set()
        await asyncio.gather(started.first, staying)
    assert [call[0].history for call in started.recommender.asked] == [["1"], ["2"]]


async def test_callers_who_come_and_go_leave_nothing_behind_a_busy_model():
    async with Started(max_queue_requests=2) as started:
        await started.busy()
        for _ in range(50):
            leaving = started.submit(KNOWN)
            await eventually(lambda: started.thread.depth == 2)
            leaving.cancel()
            await eventually(lambda: started.thread.depth == 1)
        assert len(started.thread._waiting) == 0


async def test_a_caller_who_leaves_in_the_moment_its_turn_comes_is_not_computed(monkeypatch):
    async with Started() as started:
        await started.busy()
        monkeypatch.setattr(started.thread, "_release", lambda _: None)  # it has left, and is still in the queue
        leaving = started.submit(Request(["2"]))
        await eventually(lambda: len(started.thread._waiting) == 1)
        leaving.cancel()
        await asyncio.sleep(0.02)
        monkeypatch.undo()
        behind = started.submit(Request(["3"]))
        await eventually(lambda: len(started.thread._waiting) == 2)
        started.recommender.gate.set()
        await asyncio.gather(started.first, behind)
    assert [call[0].history for call in started.recommender.asked] == [["1"], ["3"]]


async def test_a_caller_who_leaves_while_the_model_computes_keeps_its_place_until_the_end():
    async with Started() as started:
        await started.busy()
        started.first.cancel()
        await asyncio.sleep(0.02)
        assert started.thread.depth == 1
        started.recommender.gate.set()
        await eventually(lambda: started.thread.depth == 0)


async def test_no_place_leaks_when_callers_leave_at_random_moments():
    async with Started(max_queue_requests=50) as started:
        for wave in range(20):
            tasks = [started.submit(KNOWN) for _ in range(20)]
            await asyncio.sleep(0.0005 * (wave % 4))
            for task in tasks[:: 1 + wave % 3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await eventually(lambda: started.thread.depth == 0)
        assert isinstance((await started.submit(KNOWN))[0], Answer)


@pytest.mark.parametrize("poison", [BREAKS, UNANSWERABLE])
async def test_a_request_that_breaks_the_model_fails_alone_and_the_service_goes_on(poison):
    async with Started(max_queue_requests=10) as started:
        outcomes = await started.submit(KNOWN, Request([poison]), KNOWN)
        assert [type(outcome) for outcome in outcomes] == [Answer, EngineError, Answer]
        assert isinstance((await started.submit(KNOWN))[0], Answer)
        assert started.thread.state == "ready"


async def test_a_thread_that_dies_tells_everyone_and_stays_failed():
    async with Started() as started:
        await started.busy()
        fatal = started.submit(Request([KILLS]))
        behind = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 3)
        started.recommender.gate.set()
        assert isinstance((await started.first)[0], Answer)
        for task in (fatal, behind):
            with pytest.raises(NotReady):
                await task
        assert started.thread.state == "failed"
        assert isinstance(started.thread.check(), EngineError)
        with pytest.raises(NotReady):
            await started.thread.submit(attempt, [KNOWN], soon())
        assert started.thread.depth == 0


async def test_a_thread_that_hangs_is_stalled_then_failed_and_a_late_answer_changes_nothing():
    async with Started(stall_timeout_s=0.05, hang_timeout_s=0.15) as started:
        await started.busy()
        behind = started.submit(KNOWN)
        await eventually(lambda: started.thread.state == "stalled")
        assert started.thread.check() is None
        await eventually(lambda: started.thread.check() is not None)
        assert started.thread.state == "failed"
        for task in (started.first, behind):
            with pytest.raises(NotReady):
                await task
        started.recommender.gate.set()
        await eventually(lambda: not started.thread.alive)
        assert started.thread.state == "failed"


async def test_a_stall_that_ends_is_forgiven():
    async with Started(stall_timeout_s=0.05) as started:
        await started.busy()
        await eventually(lambda: started.thread.state == "stalled")
        started.recommender.gate.set()
        await started.first
        await eventually(lambda: started.thread.state == "ready")


async def test_nothing_is_admitted_while_it_loads():
    gate = threading.Event()

    def load() -> Recommender:
        gate.wait()
        return cast(Recommender, FakeRecommender())

    thread = InferenceThread(load, max_queue_requests=1)
    thread.start()
    assert thread.state == "loading"
    with pytest.raises(NotReady, match="loading"):
        await thread.submit(attempt, [KNOWN], soon())
    with pytest.raises(NotReady):
        _ = thread.recommender
    impatient = asyncio.wrap_future(thread.loaded)
    impatient.cancel()
    await asyncio.sleep(0)
    gate.set()
    await eventually(lambda: thread.state == "ready")
    assert len(await thread.submit(attempt, [KNOWN], soon())) == 1
    thread.stop(5.0)


@pytest.mark.parametrize(
    ("raised", "seen"), [(BundleError("x"), BundleError), (MemoryError(), EngineError), (KeyError("x"), EngineError)]
)
async def test_a_load_that_fails_is_the_failure_of_the_thread(raised, seen):
    def load() -> Recommender:
        raise raised

    thread = InferenceThread(load, max_queue_requests=1)
    thread.start()
    with pytest.raises(GenrecError) as caught:
        await asyncio.wrap_future(thread.loaded)
    assert type(caught.value) is seen
    assert thread.check() is caught.value


async def test_stop_answers_what_was_admitted_and_admits_nothing_more():
    async with Started() as started:
        await started.busy()
        behind = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 2)
        stopping = asyncio.create_task(asyncio.to_thread(started.thread.stop, 5.0))
        await eventually(lambda: started.thread.state == "stopping")
        with pytest.raises(NotReady):
            await started.thread.submit(attempt, [KNOWN], soon())
        started.recommender.gate.set()
        await stopping
        assert isinstance((await started.first)[0], Answer)
        assert isinstance((await behind)[0], Answer)
        assert not started.thread.alive


async def test_a_change_reaches_what_comes_after_it_and_not_what_is_in_the_models_hands():
    async with Started() as started:
        await started.busy()
        behind = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 2)
        with started.thread.changing() as recommender:
            everything = recommender.availability
            started.thread.replace(replace(recommender, availability=replace(everything, version=7)))
        assert started.thread.recommender.availability.version == 7
        started.recommender.gate.set()
        [first], [second] = await started.first, await behind
        assert (cast(Answer, first).catalog_version, cast(Answer, second).catalog_version) == (0, 7)


async def test_one_change_is_made_at_a_time():
    async with Started() as started:
        with started.thread.changing():
            late = threading.Thread(target=lambda: started.thread.changing().__enter__())
            late.start()
            late.join(0.05)
            assert late.is_alive()
        late.join(5.0)
        assert not late.is_alive()


async def test_a_recommender_that_was_replaced_is_let_go():
    async with Started() as started:
        await started.submit(KNOWN)
        first = weakref.ref(started.recommender)
        with started.thread.changing() as recommender:
            started.thread.replace(replace(recommender))
        del recommender
        started.recommender = cast(FakeRecommender, started.thread.recommender)
        await started.submit(KNOWN)
        gc.collect()
        assert first() is None


async def test_there_is_nothing_to_change_before_it_is_loaded_or_after_it_failed():
    thread = InferenceThread(lambda: cast(Recommender, FakeRecommender()), max_queue_requests=1)
    with pytest.raises(NotReady), thread.changing():
        pass
    thread.start()
    await asyncio.wrap_future(thread.loaded)
    thread.fail(EngineError("x"))
    with pytest.raises(NotReady), thread.changing():
        pass


async def test_each_request_is_answered_by_the_call_it_came_with():
    def count(recommender: Recommender, words: Sequence[str]) -> Sequence[int | GenrecError]:
        assert threading.current_thread().name == "inference"
        assert cast(FakeRecommender, recommender) is started.recommender
        return [EngineError("empty") if not word else len(word) for word in words]

    async with Started(max_queue_requests=10) as started:
        await started.busy()
        counted = asyncio.create_task(started.thread.submit(count, ["a", "", "ccc"], soon()))
        recommended = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 5)
        started.recommender.gate.set()
        first, broken, third = await counted
        assert (first.outcome, third.outcome) == (1, 3)
        assert isinstance(broken.outcome, EngineError)
        assert isinstance((await recommended)[0], Answer)
        await started.first
    assert started.recommender.computed == 2


async def test_whatever_the_call_a_request_that_breaks_it_fails_alone():
    asked: list[list[int]] = []

    def invert(_: Recommender, numbers: Sequence[int]) -> Sequence[float]:
        asked.append(list(numbers))
        return [1 / number for number in numbers]

    async with Started() as started:
        outcomes = [served.outcome for served in await started.thread.submit(invert, [2, 0, 4], soon())]
    assert (outcomes[0], outcomes[2]) == (0.5, 0.25)
    assert isinstance(outcomes[1], EngineError)
    assert asked == [[2, 0, 4], [2], [0], [4]]
