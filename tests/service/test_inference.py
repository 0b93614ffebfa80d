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
from genrec.errors import BundleError, EngineError, EngineLost, GenrecError, InvalidOutput, OutOfMemory
from genrec.recommender import Recommender
from genrec.requests import Request
from service.batcher import Work
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.inference import Batch, InferenceThread, Limits
from tests.service.fakes import BREAKS, KILLS, UNANSWERABLE, FakeRecommender, eventually

pytestmark = pytest.mark.anyio

KNOWN = Request(["1"])


def attempt(recommender: Recommender, requests: Sequence[Request]) -> Sequence[Answer | EngineError]:
    return recommender.attempt(requests)


RECOMMEND = Work(attempt, lambda recommender, request: recommender.beam_rows(request))


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


class Started:
    """A started thread around a fake, ended at the end of the test."""

    def __init__(self, **settings: float) -> None:
        self.recommender = FakeRecommender()
        self.batches: list[Batch] = []
        self.thread = InferenceThread(
            lambda: cast(Recommender, self.recommender),
            Limits(**{"max_queue_rows": 4, "max_batch_rows": 4, **settings}),  # type: ignore[arg-type]
            self.batches.append,
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
        return [
            served.outcome
            for served in await self.thread.submit(self.thread.recommender, RECOMMEND, requests, deadline or soon())
        ]

    async def busy(self) -> None:
        """Close the gate and have one request computed behind it."""
        self.recommender.gate.clear()
        self.first = self.submit(KNOWN)
        await eventually(self.recommender.entered.is_set)


async def test_requests_are_answered_in_order_in_the_one_thread():
    async with Started(max_queue_rows=100) as started:
        tasks = [started.submit(Request(["1"], k=k)) for k in range(1, 11)]
        answers = [cast(Answer, (await task)[0]) for task in tasks]
    assert [len(answer.items) for answer in answers] == list(range(1, 11))
    assert [request.k for call in started.recommender.asked for request in call] == list(range(1, 11))
    assert started.recommender.threads == {"inference"}


async def test_the_bound_counts_requests_and_refuses_exactly_the_next():
    async with Started(max_queue_rows=4) as started:
        await started.busy()
        waiting = [started.submit(KNOWN) for _ in range(3)]
        await eventually(lambda: started.thread.depth == 4)
        for _ in range(3):
            with pytest.raises(Overloaded):
                await started.thread.submit(started.thread.recommender, RECOMMEND, [KNOWN], soon())
        started.recommender.gate.set()
        outcomes = await asyncio.gather(started.first, *waiting)
        assert [type(outcome) for (outcome,) in outcomes] == [Answer] * 4
        await eventually(lambda: started.thread.depth == 0)


async def test_a_batch_costs_its_requests_and_is_admitted_whole_or_not_at_all():
    async with Started(max_queue_rows=4) as started:
        await started.busy()
        with pytest.raises(Overloaded):
            await started.thread.submit(started.thread.recommender, RECOMMEND, [KNOWN] * 4, soon())
        assert started.thread.depth == 1
        batch = started.submit(*[KNOWN] * 3)
        await eventually(lambda: started.thread.depth == 4)
        started.recommender.gate.set()
        assert len(await batch) == 3


async def test_a_large_batch_reaches_the_model_in_slices():
    async with Started(max_queue_rows=10, max_batch_rows=3) as started:
        assert len(await started.submit(*[Request(["1"], k=k) for k in range(1, 9)])) == 8
    assert [[request.k for request in call] for call in started.recommender.asked] == [[1, 2, 3], [4, 5, 6], [7, 8]]


async def test_a_request_whose_deadline_passes_in_the_queue_is_told_at_once_and_never_computed():
    async with Started() as started:
        await started.busy()
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await started.thread.submit(started.thread.recommender, RECOMMEND, [KNOWN], soon(0.05))
        assert time.monotonic() - begin < 0.5
        await eventually(lambda: started.thread.depth == 1)
        started.recommender.gate.set()
        await started.first
        await started.submit(KNOWN)
    assert started.recommender.computed == 2


async def test_a_deadline_that_has_passed_is_seen_by_the_thread_too():
    async with Started(max_batch_rows=1) as started:
        started.recommender.gate.clear()
        batch = started.submit(KNOWN, KNOWN, deadline=soon(0.05))
        with pytest.raises(DeadlineExceeded):
            await batch
        started.recommender.gate.set()
        await eventually(lambda: started.thread.depth == 0)
    assert started.recommender.computed == 1, "the second slice of a batch that is too late is not computed"


async def test_a_cancelled_caller_frees_its_place_and_is_never_computed():
    async with Started(max_queue_rows=2) as started:
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
    async with Started(max_queue_rows=2) as started:
        await started.busy()
        for _ in range(50):
            leaving = started.submit(KNOWN)
            await eventually(lambda: started.thread.depth == 2)
            leaving.cancel()
            await eventually(lambda: started.thread.depth == 1)
        assert len(started.thread._batcher.waiting) == 0


async def test_a_caller_who_leaves_while_the_model_computes_keeps_its_place_until_the_end():
    async with Started() as started:
        await started.busy()
        started.first.cancel()
        await asyncio.sleep(0.02)
        assert started.thread.depth == 1
        started.recommender.gate.set()
        await eventually(lambda: started.thread.depth == 0)


async def test_no_place_leaks_when_callers_leave_at_random_moments():
    async with Started(max_queue_rows=50) as started:
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
    async with Started(max_queue_rows=10) as started:
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
            await started.thread.submit(started.thread.recommender, RECOMMEND, [KNOWN], soon())
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

    thread = InferenceThread(load, Limits(max_queue_rows=1))
    thread.start()
    assert thread.state == "loading"
    with pytest.raises(NotReady, match="loading"):
        await thread.submit(thread.recommender, RECOMMEND, [KNOWN], soon())
    with pytest.raises(NotReady):
        _ = thread.recommender
    impatient = asyncio.wrap_future(thread.loaded)
    impatient.cancel()
    await asyncio.sleep(0)
    gate.set()
    await eventually(lambda: thread.state == "ready")
    assert len(await thread.submit(thread.recommender, RECOMMEND, [KNOWN], soon())) == 1
    thread.stop(5.0)


@pytest.mark.parametrize(
    ("raised", "seen"), [(BundleError("x"), BundleError), (MemoryError(), EngineError), (KeyError("x"), EngineError)]
)
async def test_a_load_that_fails_is_the_failure_of_the_thread(raised, seen):
    def load() -> Recommender:
        raise raised

    thread = InferenceThread(load, Limits(max_queue_rows=1))
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
            await started.thread.submit(started.thread.recommender, RECOMMEND, [KNOWN], soon())
        started.recommender.gate.set()
        await stopping
        assert isinstance((await started.first)[0], Answer)
        assert isinstance((await behind)[0], Answer)
        assert not started.thread.alive


async def test_a_change_reaches_what_comes_after_it_and_not_what_was_admitted_before():
    async with Started() as started:
        await started.busy()
        behind = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 2)
        with started.thread.changing() as recommender:
            everything = recommender.availability
            started.thread.replace(replace(recommender, availability=replace(everything, version=7)))
        after = started.submit(KNOWN)
        await eventually(lambda: started.thread.depth == 3)
        started.recommender.gate.set()
        [first], [second], [third] = await started.first, await behind, await after
        versions = [cast(Answer, one).catalog_version for one in (first, second, third)]
        assert versions == [0, 0, 7]
    assert [batch.requests for batch in started.batches] == [1, 1, 1], "answered by two, so in two batches"


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
    thread = InferenceThread(lambda: cast(Recommender, FakeRecommender()), Limits(max_queue_rows=1))
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

    async with Started(max_queue_rows=10) as started:
        await started.busy()
        counted = asyncio.create_task(
            started.thread.submit(started.thread.recommender, Work(count, lambda _, word: 1), ["a", "", "ccc"], soon())
        )
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
        outcomes = [
            served.outcome
            for served in await started.thread.submit(
                started.thread.recommender, Work(invert, lambda _, number: 1), [2, 0, 4], soon()
            )
        ]
    assert (outcomes[0], outcomes[2]) == (0.5, 0.25)
    assert isinstance(outcomes[1], EngineError)
    assert asked == [[2, 0, 4], [2], [0, 4], [0], [4]], "the halves are asked again"


async def test_who_is_alone_does_not_wait_for_company():
    async with Started(max_linger_s=5.0) as started:
        for _ in range(3):
            begin = time.monotonic()
            await started.submit(KNOWN)
            assert time.monotonic() - begin < 1.0


async def test_those_who_wait_are_taken_together_and_the_model_waits_for_as_many_as_came_before():
    async with Started(max_queue_rows=100, max_batch_rows=100, max_linger_s=5.0) as started:
        await started.busy()
        waiting = [started.submit(KNOWN) for _ in range(8)]
        await eventually(lambda: started.thread.depth == 9)
        started.recommender.gate.set()
        await asyncio.gather(started.first, *waiting)
        again = []
        for _ in range(8):  # one after the other, as from clients that had their answers
            again.append(started.submit(KNOWN))
            await asyncio.sleep(0.005)
        begin = time.monotonic()
        await asyncio.gather(*again)
        assert time.monotonic() - begin < 1.0
    assert [len(call) for call in started.recommender.asked] == [1, 8, 8]


async def test_company_that_does_not_come_is_waited_for_no_longer_than_said():
    async with Started(max_queue_rows=100, max_batch_rows=100, max_linger_s=0.1) as started:
        await started.busy()
        waiting = [started.submit(KNOWN) for _ in range(8)]
        await eventually(lambda: started.thread.depth == 9)
        started.recommender.gate.set()
        await asyncio.gather(started.first, *waiting)
        begin = time.monotonic()
        await started.submit(KNOWN)
        assert 0.09 < time.monotonic() - begin < 1.0
        begin = time.monotonic()
        await started.submit(KNOWN)
        assert time.monotonic() - begin < 0.09, "and is not waited for again"


async def test_a_full_batch_waits_for_nobody():
    async with Started(max_queue_rows=100, max_batch_rows=2, max_linger_s=5.0) as started:
        await started.busy()
        waiting = [started.submit(KNOWN) for _ in range(8)]
        await eventually(lambda: started.thread.depth == 9)
        started.recommender.gate.set()
        await asyncio.gather(started.first, *waiting)
        begin = time.monotonic()
        await started.submit(KNOWN, KNOWN)
        assert time.monotonic() - begin < 1.0


async def test_a_batch_that_takes_too_much_memory_is_asked_again_in_halves():
    asked: list[int] = []

    def most_two(_: Recommender, words: Sequence[str]) -> Sequence[str]:
        asked.append(len(words))
        if len(words) > 2 or "huge" in words:
            raise OutOfMemory("too much")
        return words

    async with Started(max_queue_rows=8, max_batch_rows=8) as started:
        words = ["a", "b", "c", "d", "huge", "f", "g", "h"]
        work = Work(most_two, lambda _, word: 1)
        outcomes = [one.outcome for one in await started.thread.submit(started.thread.recommender, work, words, soon())]
        assert started.thread.state == "ready"
    assert [*outcomes[:4], *outcomes[5:]] == ["a", "b", "c", "d", "f", "g", "h"]
    assert isinstance(outcomes[4], OutOfMemory)
    assert asked == [8, 4, 2, 2, 4, 2, 1, 1, 2]
    assert [type(failure) for failure in started.batches[0].failures] == [OutOfMemory]


async def test_a_lost_device_ends_the_thread_and_is_not_asked_again():
    asked: list[int] = []

    def lose(_: Recommender, words: Sequence[str]) -> Sequence[str]:
        asked.append(len(words))
        raise EngineLost("a kernel failed")

    async with Started() as started:
        with pytest.raises(NotReady):
            await started.thread.submit(started.thread.recommender, Work(lose, lambda *_: 1), ["a", "b", "c"], soon())
        assert started.thread.state == "failed"
        assert isinstance(started.thread.check(), EngineLost)
    assert asked == [3]


async def test_a_model_that_often_answers_nonsense_is_suspect_and_is_asked_all_the_same():
    def nonsense(_: Recommender, words: Sequence[str]) -> Sequence[GenrecError]:
        return [InvalidOutput(word) for word in words]

    async with Started() as started:
        work = Work(nonsense, lambda _, word: 1)
        for words, state in ((["a"], "ready"), (["b"], "ready"), (["c"], "suspect")):
            await started.thread.submit(started.thread.recommender, work, words, soon())
            await eventually(lambda: len(started.batches) > 0)
            started.batches.clear()
            assert started.thread.state == state
        assert isinstance((await started.submit(KNOWN))[0], Answer)


async def test_who_drains_is_not_ready_and_answers_all_the_same():
    async with Started() as started:
        started.thread.drain()
        assert started.thread.state == "draining"
        assert isinstance((await started.submit(KNOWN))[0], Answer)


async def test_one_request_is_not_taken_together_with_one_of_another_width():
    async with Started(max_queue_rows=100, max_batch_rows=100) as started:
        await started.busy()
        waiting = [started.submit(Request(["1"], num_beams=width)) for width in (10, 20, 10)]
        await eventually(lambda: started.thread.depth == 4)
        assert started.thread.rows == 41
        started.recommender.gate.set()
        await asyncio.gather(started.first, *waiting)
    assert [[request.num_beams for request in call] for call in started.recommender.asked] == [[None], [10, 10], [20]]
