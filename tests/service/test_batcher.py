"""What waits, what it costs, and what goes together. Time is a number here."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genrec.errors import RequestError
from genrec.recommender import Recommender
from service.batcher import Batcher, Job, Work
from service.errors import Overloaded

RECOMMEND: Work[Any, Any] = Work(lambda _, asked: asked, lambda _, asked: 1)
SCORE: Work[Any, Any] = Work(lambda _, asked: asked, lambda _, asked: 1)
ONE, OTHER = cast(Recommender, "one"), cast(Recommender, "other")


def a_job(
    rows: int = 10,
    *,
    name: object = None,
    work: Work[Any, Any] = RECOMMEND,
    deadline: float = 1e9,
    recommender: Recommender = ONE,
) -> Job:
    return Job(recommender, work, name, rows, deadline, 0.0, None, 0)


def names(jobs: list[Job]) -> list[object]:
    return [job.request for job in jobs]


def test_the_oldest_is_taken_with_those_that_go_with_it_in_their_order():
    batcher = Batcher(max_queue_rows=1_000, max_batch_rows=100)
    batcher.admit([a_job(name="a"), a_job(20, name="wide"), a_job(name="b")])
    batcher.admit([a_job(name="scored", work=SCORE), a_job(name="newer", recommender=OTHER), a_job(name="c")])
    assert [names(batcher.take(0.0)) for _ in range(5)] == [["a", "b", "c"], ["wide"], ["scored"], ["newer"], []]


def test_a_batch_has_no_more_rows_than_it_may_and_one_request_always_fits():
    batcher = Batcher(max_queue_rows=1_000, max_batch_rows=25)
    batcher.admit([a_job(name=place) for place in range(5)])
    batcher.admit([a_job(400, name="large")])
    assert [names(batcher.take(0.0)) for _ in range(4)] == [[0, 1], [2, 3], [4], ["large"]]


def test_what_does_not_fit_waits_for_the_next_batch_and_nobody_younger_overtakes_it():
    batcher = Batcher(max_queue_rows=1_000, max_batch_rows=25)
    batcher.admit([a_job(name=place) for place in range(3)])
    assert names(batcher.take(0.0)) == [0, 1]
    batcher.admit([a_job(name=3)])
    assert names(batcher.take(0.0)) == [2, 3]


def test_a_call_of_many_costs_what_many_calls_cost():
    """B3: the bound cannot be walked around by batching."""
    one, many = (Batcher(max_queue_rows=640, max_batch_rows=100) for _ in range(2))
    many.admit([a_job() for _ in range(64)])
    for _ in range(64):
        one.admit([a_job()])
    assert one.rows == many.rows == 640
    for batcher in (one, many):
        with pytest.raises(Overloaded, match="room for 0 beam rows of 640"):
            batcher.admit([a_job(1)])


def test_all_of_a_call_are_admitted_or_none():
    batcher = Batcher(max_queue_rows=30, max_batch_rows=30)
    batcher.admit([a_job()])
    with pytest.raises(Overloaded):
        batcher.admit([a_job(), a_job(), a_job()][:3])
    assert (batcher.rows, batcher.jobs, len(batcher.waiting)) == (10, 1, 1)


def test_what_can_never_be_admitted_is_the_callers_mistake_and_not_an_overload():
    with pytest.raises(RequestError, match="costs 40 beam rows and the service holds at most 30"):
        Batcher(max_queue_rows=30, max_batch_rows=30).admit([a_job(40)])


def test_who_is_too_late_is_never_taken_and_gives_its_room_back():
    batcher = Batcher(max_queue_rows=30, max_batch_rows=30)
    batcher.admit([a_job(name="late", deadline=1.0), a_job(name="just", deadline=1.1)])
    assert names(batcher.take(1.0)) == ["just"]
    assert (batcher.rows, batcher.jobs) == (10, 1)


def test_room_is_held_until_the_answer_is_there():
    batcher = Batcher(max_queue_rows=20, max_batch_rows=20)
    batcher.admit([a_job(), a_job()])
    batch = batcher.take(0.0)
    batcher.leave(batch)  # the callers go; the model computes all the same
    with pytest.raises(Overloaded):
        batcher.admit([a_job()])
    batcher.done(batch)
    batcher.admit([a_job()])


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=40), st.integers(1, 60))
def test_everything_admitted_is_taken_once_and_batches_are_of_one_kind(kinds, max_batch_rows):
    batcher = Batcher(max_queue_rows=10_000, max_batch_rows=max_batch_rows)
    jobs = [a_job(rows, name=place, work=SCORE if score else RECOMMEND) for place, (rows, score) in enumerate(kinds)]
    batcher.admit(jobs)
    batches = []
    while batch := batcher.take(0.0):
        assert batch[0] is min(batcher.waiting | set(batch), key=lambda job: cast(int, job.request)), "the oldest"
        assert len({(job.work, job.rows) for job in batch}) == 1
        assert len(batch) == 1 or sum(job.rows for job in batch) <= max_batch_rows
        assert names(batch) == sorted(cast("list[int]", names(batch)))
        batches += batch
    assert sorted(cast("list[int]", names(batches))) == list(range(len(kinds)))


class AnyOrder(RuleBasedStateMachine):
    """Calls that come, leave, are taken and end in any order: no place is ever lost or won."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(max_queue_rows=100, max_batch_rows=40)
        self.waiting: list[Job] = []
        self.taken: list[Job] = []

    @rule(rows=st.lists(st.sampled_from([1, 7, 10]), min_size=1, max_size=8), late=st.booleans())
    def admit(self, rows, late):
        jobs = [a_job(size, deadline=0.0 if late else 1e9) for size in rows]
        held = sum(job.rows for job in self.waiting + self.taken)
        try:
            self.batcher.admit(jobs)
            self.waiting += jobs
            assert held + sum(rows) <= 100
        except Overloaded:
            assert held + sum(rows) > 100

    @rule(data=st.data())
    def leave(self, data):
        leaving = data.draw(st.lists(st.sampled_from(self.waiting + self.taken or [a_job()]), unique=True))
        self.batcher.leave(leaving)
        self.waiting = [job for job in self.waiting if job not in leaving]

    @rule()
    def take(self):
        batch = self.batcher.take(1.0)
        self.waiting = [job for job in self.waiting if job.deadline > 1.0 and job not in batch]
        self.taken += batch
        assert batch or not self.waiting

    @precondition(lambda self: self.taken)
    @rule()
    def done(self):
        self.batcher.done(self.taken)
        self.taken = []

    @invariant()
    def counts_what_is_there(self):
        assert self.batcher.jobs == len(self.waiting) + len(self.taken)
        assert self.batcher.rows == sum(job.rows for job in self.waiting + self.taken)
        assert self.batcher.full_batch == (sum(job.rows for job in self.waiting) >= 40)
        assert list(self.batcher.waiting) == self.waiting


TestAnyOrder = AnyOrder.TestCase
