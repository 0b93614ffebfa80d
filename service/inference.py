"""The one thread that owns the recommender, behind a bounded queue.

PyTorch and the model are loaded, used and kept in this thread, never on the event loop: admission, deadlines and probes
go on answering while the model computes. Knows no HTTP, and no kind of request: requests come with the call that
answers them. `submit` is the seam: what turns waiting requests into such calls is this file's own business.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

import structlog

from genrec.errors import EngineError, GenrecError
from genrec.recommender import Recommender
from service.errors import DeadlineExceeded, NotReady, Overloaded

log = structlog.stdlib.get_logger(__name__)

State = Literal["loading", "ready", "stalled", "failed", "stopping"]

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

Ask = Callable[[Recommender, Sequence[Asked]], Sequence[Answered | GenrecError]]
"""Has a recommender answer some requests: an answer for each in order, or the error that it alone ended in."""


@dataclass(frozen=True, slots=True)
class Served(Generic[Answered]):
    """What became of one request.

    Attributes:
        outcome: its answer, or the error that it alone ended in.
        queue_ms: from admission until the model took it.
    """

    outcome: Answered | GenrecError
    queue_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _Job(Generic[Asked, Answered]):
    ask: Ask[Asked, Answered]
    requests: tuple[Asked, ...]
    deadline: float
    admitted: float = field(default_factory=monotonic)
    served: Future[list[Served[Answered]]] = field(default_factory=Future)


_AnyJob = _Job[Any, Any]


class InferenceThread:
    """Answers requests one job after another, in the order of their admission.

    Attributes:
        loaded: done once the recommender is there; or the error that refused it.
    """

    def __init__(
        self,
        load: Callable[[], Recommender],
        *,
        max_queue_requests: int,
        max_inference_requests: int = 8,
        stall_timeout_s: float = 1.5,
        hang_timeout_s: float = 30.0,
    ) -> None:
        """Nothing starts before `start`.

        Args:
            load: makes the recommender; called in the thread.
            max_queue_requests: admitted and not yet answered, those in the model's hands included.
            max_inference_requests: how many the model is given at once; bounds its memory, and how long it is silent.
            stall_timeout_s: the model silent for so long is `stalled`.
            hang_timeout_s: the model silent for so long has failed for good.
        """
        self.loaded: Future[None] = Future()  # not the recommender, which would then outlive its successor
        self._load = load
        self._max_queue_requests = max_queue_requests
        self._max_inference_requests = max_inference_requests
        self._stall_timeout_s = stall_timeout_s
        self._hang_timeout_s = hang_timeout_s
        self._recommender: Recommender | None = None
        self._one_change = threading.Lock()
        self._change = threading.Condition()
        self._waiting: dict[_AnyJob, None] = {}  # by admission; a dict, so that one who leaves need not be looked for
        self._running: _AnyJob | None = None
        self._admitted = 0
        self._silent_since: float | None = None  # when the model began what it does now
        self._failure: GenrecError | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._live, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self.loaded.set_running_or_notify_cancel()  # whoever waits for it may leave without cancelling it
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Admit nothing more, answer what is admitted, end. A thread that loads or hangs is not waited for."""
        listens = self.state in ("ready", "stalled")
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
        return "stalled" if self.silent_s > self._stall_timeout_s else "ready"

    @property
    def silent_s(self) -> float:
        """How long the model has been at what it does now, in seconds; 0 while it waits for work."""
        since = self._silent_since
        return 0.0 if since is None else monotonic() - since

    @property
    def depth(self) -> int:
        """How many requests are admitted and not yet answered."""
        return self._admitted

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
        """Have what is admitted from now on answered by another recommender. To be called while `changing`.

        What the model has in hand is finished by the recommender that it was begun with: one job, one recommender.
        """
        self._recommender = recommender

    def check(self) -> GenrecError | None:
        """Why the thread can answer no more, or None while it can. To be called every now and then: the watchdog."""
        if self._failure is None and self.silent_s > self._hang_timeout_s:
            self.fail(EngineError(f"inference has not returned for {self._hang_timeout_s:g} s; the engine hangs."))
        return self._failure

    async def submit(
        self, ask: Ask[Asked, Answered], requests: Sequence[Asked], deadline: float
    ) -> list[Served[Answered]]:
        """Have requests answered, all admitted together or none.

        If the caller is cancelled while they wait, they leave the queue uncomputed.

        Args:
            ask: how they are answered; called in the thread.
            requests: at least one; each costs one place.
            deadline: on the clock of `time.monotonic`, seconds.

        Returns:
            What became of each, in order.

        Raises:
            Overloaded: not that many places are free.
            NotReady: there is no engine to ask, or it failed meanwhile.
            DeadlineExceeded: the deadline came first. Requests that were still waiting are never computed.
        """
        job = self._admit(_Job(ask, tuple(requests), deadline))
        try:
            async with asyncio.timeout(deadline - monotonic()):
                return await asyncio.wrap_future(job.served)
        except TimeoutError as error:
            raise DeadlineExceeded("The deadline passed before the answer was there.") from error

    def fail(self, error: GenrecError) -> None:
        """Never answer again, and tell everyone who waits."""
        with self._change:
            self._failure = self._failure or error
            self._change.notify_all()
        with suppress(InvalidStateError):
            self.loaded.set_exception(error)
        self._give_up("The engine failed before it could answer.")

    def _admit(self, job: _Job[Asked, Answered]) -> _Job[Asked, Answered]:
        with self._change:
            if self._failure is not None or self._stopping or not self.loaded.done():
                raise NotReady(f"The service is not ready: {self.state}.")
            free = self._max_queue_requests - self._admitted
            if len(job.requests) > free:
                raise Overloaded(f"The queue has {free} free places of {self._max_queue_requests}; try again shortly.")
            self._admitted += len(job.requests)
            self._waiting[job] = None
            self._change.notify_all()
        job.served.add_done_callback(lambda _: self._release(job))
        return job

    def _release(self, job: _AnyJob) -> None:
        with self._change:
            self._waiting.pop(job, None)
            self._admitted -= len(job.requests)

    def _give_up(self, reason: str) -> None:
        with self._change:
            pending = [*self._waiting, *([self._running] if self._running else [])]
        for job in pending:
            _settle(job, NotReady(reason))

    def _live(self) -> None:
        try:
            self._recommender = self._load()
            self.loaded.set_result(None)
            while (job := self._next()) is not None:
                _settle(job, self._serve(self._recommender, job))
        except GenrecError as error:
            self.fail(error)
        except BaseException as error:  # the thread's outermost frame: whatever ends it must be seen
            log.exception("the inference thread died")
            self.fail(EngineError(f"the inference thread died of {type(error).__name__}."))

    def _next(self) -> _AnyJob | None:
        while True:
            with self._change:
                self._running = None
                self._change.wait_for(lambda: self._waiting or self._stopping or self._failure)
                if not self._waiting or self._failure is not None:
                    return None
                job = self._running = next(iter(self._waiting))
                del self._waiting[job]
            if job.served.set_running_or_notify_cancel():
                return job

    def _serve(self, recommender: Recommender, job: _Job[Asked, Answered]) -> list[Served[Answered]] | GenrecError:
        served: list[Served[Answered]] = []
        try:
            for start in range(0, len(job.requests), self._max_inference_requests):
                self._silent_since = now = monotonic()
                if now >= job.deadline:
                    return DeadlineExceeded("The deadline passed before the model was asked.")
                part = job.requests[start : start + self._max_inference_requests]
                outcomes = _outcomes(job.ask, recommender, part)
                served += [Served(outcome, (now - job.admitted) * 1e3) for outcome in outcomes]
        finally:
            self._silent_since = None
        return served


def _outcomes(
    ask: Ask[Asked, Answered], recommender: Recommender, requests: Sequence[Asked]
) -> Sequence[Answered | GenrecError]:
    # A request that breaks the model fails alone: its neighbours are asked again without it.
    try:
        return ask(recommender, requests)
    except GenrecError as error:
        failure = error
    except Exception as error:  # whatever the libraries below raise is one request's failure, not ours
        log.exception("inference failed", requests=len(requests))
        failure = EngineError(f"inference failed with {type(error).__name__}.")
    if len(requests) == 1:
        return [failure]
    return [outcome for request in requests for outcome in _outcomes(ask, recommender, [request])]


def _settle(job: _Job[Asked, Answered], outcome: list[Served[Answered]] | GenrecError) -> None:
    # Whoever comes first settles a job: the thread with an answer, the watchdog with an error, the caller by leaving.
    with suppress(InvalidStateError):
        if isinstance(outcome, GenrecError):
            job.served.set_exception(outcome)
        else:
            job.served.set_result(outcome)
