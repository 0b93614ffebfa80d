"""The one thread that owns the recommender, and takes what waits for it in batches.

PyTorch and the model are loaded, used and kept in this thread, never on the event loop: admission, deadlines and probes
go on answering while the model computes. Knows no HTTP, and no kind of request: requests come with the work that
answers them.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

import structlog

from genrec.errors import EngineError, EngineLost, GenrecError, InvalidOutput
from genrec.recommender import Recommender
from service.batcher import Answered, Asked, Batcher, Job, Work
from service.calls import Call, Served, settle_all
from service.errors import DeadlineExceeded, NotReady
from service.invalid_outputs import InvalidOutputs

log = structlog.stdlib.get_logger(__name__)

State = Literal["loading", "ready", "stalled", "suspect", "draining", "failed", "stopping"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What the model was given at once.

    Attributes:
        requests: how many.
        rows: their beam rows.
        queue_s: how long each had waited.
        outcomes: what became of each.
    """

    requests: int
    rows: int
    queue_s: Sequence[float]
    outcomes: Sequence[object]

    @property
    def failures(self) -> list[GenrecError]:
        """Those that ended in an error."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, GenrecError)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an inference thread takes, and how patient it is.

    Attributes:
        max_queue_rows: beam rows admitted and not yet answered, those in the model's hands included.
        max_batch_rows: beam rows given to the model at once; bounds its memory, and how long it is silent.
        max_linger_s: how long the model waits at most for more requests to take together.
        stall_timeout_s: the model silent for so long is `stalled`.
        hang_timeout_s: the model silent for so long has failed for good.
    """

    max_queue_rows: int = 16_384
    max_batch_rows: int = 1_024
    max_linger_s: float = 0.002
    stall_timeout_s: float = 1.5
    hang_timeout_s: float = 30.0


class InferenceThread:
    """Answers requests in batches, the oldest first.

    Attributes:
        loaded: done once the recommender is there; or the error that refused it.
    """

    def __init__(
        self,
        load: Callable[[], Recommender],
        limits: Limits = Limits(),
        observe: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        """Nothing starts before `start`.

        Args:
            load: makes the recommender; called in the thread.
            limits: what is taken.
            observe: told of every batch; called in the thread.
        """
        self.loaded: Future[None] = Future()  # not the recommender, which would then outlive its successor
        self._load = load
        self._limits = limits
        self._observe = observe
        self._recommender: Recommender | None = None
        self._one_change = threading.Lock()
        self._change = threading.Condition()
        self._batcher = Batcher(max_queue_rows=limits.max_queue_rows, max_batch_rows=limits.max_batch_rows)
        self._expected = 1  # requests that were here when the model was last free: who is alone is not made to wait
        self._running: list[Job] = []
        self._silent_since: float | None = None  # when the model began what it does now
        self._invalid = InvalidOutputs()
        self._failure: GenrecError | None = None
        self._draining = False
        self._stopping = False
        self._thread = threading.Thread(target=self._live, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self.loaded.set_running_or_notify_cancel()  # whoever waits for it may leave without cancelling it
        self._thread.start()

    def drain(self) -> None:
        """Say that it will stop soon: it is not ready any more, and answers what comes all the same."""
        self._draining = True

    def stop(self, timeout_s: float) -> None:
        """Admit nothing more, answer what is admitted, end. A thread that loads or hangs is not waited for."""
        listens = self.loaded.done() and self._failure is None
        with self._change:
            self._stopping = True
            self._change.notify_all()
        if listens:
            self._thread.join(timeout_s)
        self._give_up("The service is stopping.")

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def state(self) -> State:
        """How the thread does now."""
        if self._failure is not None:
            return "failed"
        if self._stopping:
            return "stopping"
        if not self.loaded.done():
            return "loading"
        if self._draining:
            return "draining"
        if self.silent_s > self._limits.stall_timeout_s:
            return "stalled"
        return "suspect" if self._invalid.too_many(monotonic()) else "ready"

    @property
    def silent_s(self) -> float:
        """How long the model has been at what it does now, in seconds; 0 while it waits for work."""
        since = self._silent_since
        return 0.0 if since is None else monotonic() - since

    @property
    def depth(self) -> int:
        """How many requests are admitted and not yet answered."""
        return self._batcher.jobs

    @property
    def rows(self) -> int:
        """How many beam rows they cost."""
        return self._batcher.rows

    @property
    def recommender(self) -> Recommender:
        """The recommender that answers what comes now.

        Raises:
            NotReady: it is not loaded yet, or never will be.
        """
        if self._failure is not None or self._recommender is None:
            raise NotReady(f"The service is not ready: {self.state}.")
        return self._recommender

    @contextmanager
    def changing(self) -> Iterator[Recommender]:
        """Keep every other change away while one is made: gives the recommender as it is, `replace` ends the change.

        Raises:
            NotReady: there is no recommender to change.
        """
        with self._one_change:
            yield self.recommender

    def replace(self, recommender: Recommender) -> None:
        """Have another recommender answer what comes from now on. To be called while `changing`.

        What was admitted before is answered by the one that it was checked against.
        """
        self._recommender = recommender

    def check(self) -> GenrecError | None:
        """Why the thread can answer no more, or None while it can. To be called every now and then: the watchdog."""
        hang_s = self._limits.hang_timeout_s
        if self._failure is None and self.silent_s > hang_s:
            self.fail(EngineError(f"inference has not returned for {hang_s:g} s; the engine hangs."))
        return self._failure

    async def submit(
        self, recommender: Recommender, work: Work[Asked, Answered], requests: Sequence[Asked], deadline: float
    ) -> list[Served[Answered]]:
        """Have requests answered, all admitted together or none.

        If the caller is cancelled while they wait, they leave the queue uncomputed.

        Args:
            recommender: who is to answer.
            work: of which kind they are.
            requests: at least one.
            deadline: on the clock of `time.monotonic`, seconds.

        Returns:
            What became of each, in order.

        Raises:
            Overloaded: there is no room for them now.
            RequestError: they cost more than there ever is room for.
            NotReady: there is no engine to ask, or it failed meanwhile.
            DeadlineExceeded: the deadline came first. Requests that were still waiting are never computed.
        """
        call = self._admit(recommender, work, requests, deadline)
        try:
            async with asyncio.timeout(deadline - monotonic()):
                return await call.handed_over
        except TimeoutError as error:
            raise DeadlineExceeded("The deadline passed before the answer was there.") from error
        finally:
            with self._change:
                self._batcher.leave(call.jobs)

    def fail(self, error: GenrecError) -> None:
        """Never answer again, and tell everyone who waits."""
        with self._change:
            self._failure = self._failure or error
            self._change.notify_all()
        with suppress(InvalidStateError):
            self.loaded.set_exception(error)
        self._give_up("The engine failed before it could answer.")

    def _admit(
        self, recommender: Recommender, work: Work[Asked, Answered], requests: Sequence[Asked], deadline: float
    ) -> Call[Answered]:
        loop, now = asyncio.get_running_loop(), monotonic()
        call: Call[Answered] = Call(loop, loop.create_future())
        call.jobs += [
            Job(recommender, work, request, work.rows(recommender, request), deadline, now, call, place)
            for place, request in enumerate(requests)
        ]
        with self._change:
            if self._failure is not None or self._stopping or not self.loaded.done():
                raise NotReady(f"The service is not ready: {self.state}.")
            self._batcher.admit(call.jobs)
            self._change.notify_all()
        return call

    def _give_up(self, reason: str) -> None:
        with self._change:
            jobs = [*self._batcher.waiting, *self._running]
            self._batcher.leave(jobs)
        settle_all(_calls(jobs), NotReady(reason))

    def _live(self) -> None:
        try:
            self._recommender = self._load()
            self.loaded.set_result(None)
            while batch := self._next():
                self._serve(batch)
        except GenrecError as error:
            self.fail(error)
        except BaseException as error:  # the thread's outermost frame: whatever ends it must be seen
            log.exception("the inference thread died")
            self.fail(EngineError(f"the inference thread died of {type(error).__name__}."))

    def _next(self) -> list[Job]:
        """The next batch, never empty; empty once there is nothing more to do."""
        with self._change:
            while True:
                self._change.wait_for(lambda: self._batcher.waiting or self._stopping or self._failure)
                if not self._batcher.waiting or self._failure is not None:
                    return []
                self._change.wait_for(self._enough, self._limits.max_linger_s)
                here = len(self._batcher.waiting)
                self._running = self._batcher.take(monotonic())
                if self._running:
                    self._expected = here
                    return self._running

    def _enough(self) -> bool:
        """Whether it is not worth waiting for more: as many are here as were lately, or as one batch takes."""
        batcher = self._batcher
        return len(batcher.waiting) >= self._expected or batcher.full_batch or self._stopping or bool(self._failure)

    def _serve(self, batch: Sequence[Job]) -> None:
        begin = monotonic()
        try:
            outcomes = self._outcomes(batch)
        finally:
            self._silent_since = None
            with self._change:
                self._batcher.done(batch)
        for job, outcome in zip(batch, outcomes, strict=True):
            job.call.served[job.place] = Served(outcome, job.recommender, (begin - job.admitted) * 1e3, len(batch))
        with self._change:
            self._running = []
        settle_all([call for call in _calls(batch) if call.complete])
        self._invalid.note(sum(isinstance(outcome, InvalidOutput) for outcome in outcomes), begin)
        queue_s = [begin - job.admitted for job in batch]
        self._observe(Batch(len(batch), sum(job.rows for job in batch), queue_s, outcomes))

    def _outcomes(self, batch: Sequence[Job]) -> Sequence[Any]:
        # A request that breaks the model fails alone, and one that takes too much memory only for itself: each half is
        # asked again without the other.
        self._silent_since = monotonic()
        try:
            return batch[0].work.ask(batch[0].recommender, [job.request for job in batch])
        except EngineLost:
            raise
        except GenrecError as error:
            failure = error
        except Exception as error:  # whatever the libraries below raise is one request's failure, not ours
            log.exception("inference failed", requests=len(batch))
            failure = EngineError(f"inference failed with {type(error).__name__}.")
        if len(batch) == 1:
            return [failure]
        middle = len(batch) // 2
        return [*self._outcomes(batch[:middle]), *self._outcomes(batch[middle:])]


def _calls(jobs: Iterable[Job]) -> list[Call[Any]]:
    return list(dict.fromkeys(job.call for job in jobs))
