"""Requests that wait for the model: admitted by what they cost, taken in batches of those that go together.

A cost is counted in beam rows, so that a call of 64 histories takes the room of 64 calls of one. Knows no thread and no
clock: whoever owns a batcher locks it, and says what time it is.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from genrec.errors import GenrecError, RequestError
from genrec.recommender import Recommender
from service.errors import Overloaded

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(frozen=True, slots=True)
class Work(Generic[Asked, Answered]):
    """A kind of request.

    Attributes:
        ask: has a recommender answer some of them: an answer for each in order, or the error that it alone ended in.
        rows: the beam rows that one of them holds at most.
    """

    ask: Callable[[Recommender, Sequence[Asked]], Sequence[Answered | GenrecError]]
    rows: Callable[[Recommender, Asked], int]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request that waits, or is being answered.

    Attributes:
        recommender: who is to answer: the one that the request was checked against.
        work: its kind.
        request: what is asked.
        rows: its cost in beam rows.
        deadline: after it nobody waits for the answer; seconds on the owner's clock.
        admitted: when it came; seconds on the owner's clock.
        call: whose it is, for the owner to know.
        place: its place within the call.
    """

    recommender: Recommender
    work: Work[Any, Any]
    request: object
    rows: int
    deadline: float
    admitted: float
    call: Any
    place: int

    def goes_with(self, other: "Job") -> bool:
        """Whether one decode can answer both: one recommender, one kind of request, beams of one width."""
        same = self.work is other.work and self.recommender is other.recommender
        return same and self.rows == other.rows


class Batcher:
    """The jobs that are admitted and not yet done, oldest first.

    Attributes:
        rows: beam rows of all that is admitted, what the model has in hand included.
        jobs: how many that is in requests.
    """

    def __init__(self, *, max_queue_rows: int, max_batch_rows: int) -> None:
        """Empty.

        Args:
            max_queue_rows: beam rows admitted and not yet done.
            max_batch_rows: beam rows of a batch; a single request may have more.
        """
        self.rows = 0
        self.jobs = 0
        self._max_queue_rows = max_queue_rows
        self._max_batch_rows = max_batch_rows
        self._waiting: dict[Job, None] = {}  # a dict, so that one who leaves need not be looked for
        self._waiting_rows = 0

    @property
    def waiting(self) -> Collection[Job]:
        """Those that the model has not taken, oldest first."""
        return self._waiting.keys()

    @property
    def full_batch(self) -> bool:
        """Whether no batch could hold more than what waits."""
        return self._waiting_rows >= self._max_batch_rows

    def admit(self, jobs: Sequence[Job]) -> None:
        """Let all of them wait, or none.

        Raises:
            RequestError: they cost more than the whole queue holds, so they never can.
            Overloaded: there is no room for them now.
        """
        rows = sum(job.rows for job in jobs)
        if rows > self._max_queue_rows:
            raise RequestError(
                f"The request costs {rows} beam rows and the service holds at most {self._max_queue_rows}; "
                "ask for fewer beams, or for less at once."
            )
        free = self._max_queue_rows - self.rows
        if rows > free:
            raise Overloaded(f"The queue has room for {free} beam rows of {self._max_queue_rows}; try again shortly.")
        self._waiting.update(dict.fromkeys(jobs))
        self._waiting_rows += rows
        self.rows += rows
        self.jobs += len(jobs)

    def take(self, now: float) -> list[Job]:
        """The next batch: the oldest job and those that go with it, as many as a batch may hold.

        Jobs whose deadline has passed are dropped: they are done, and were never computed. Empty if nothing waits.
        """
        late = [job for job in self._waiting if job.deadline <= now]
        self.leave(late)
        batch: list[Job] = []
        rows = 0
        for job in self._waiting:
            if batch and not job.goes_with(batch[0]):
                continue
            if batch and rows + job.rows > self._max_batch_rows:
                break
            batch.append(job)
            rows += job.rows
        for job in batch:
            del self._waiting[job]
        self._waiting_rows -= rows
        return batch

    def leave(self, jobs: Sequence[Job]) -> None:
        """Take out those of them that still wait; nobody needs them any more."""
        left = [job for job in jobs if job in self._waiting]
        for job in left:
            del self._waiting[job]
        self._waiting_rows -= sum(job.rows for job in left)
        self.done(left)

    def done(self, jobs: Sequence[Job]) -> None:
        """Give back the room of jobs that were taken."""
        self.rows -= sum(job.rows for job in jobs)
        self.jobs -= len(jobs)
