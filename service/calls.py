"""What a caller waits for: the outcomes of all requests of a call, whichever batches they were answered in."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic

from genrec.errors import GenrecError
from genrec.recommender import Recommender
from service.batcher import Answered, Job


@dataclass(frozen=True, slots=True)
class Served(Generic[Answered]):
    """What became of one request.

    Attributes:
        outcome: its answer, or the error that it alone ended in.
        recommender: who answered.
        queue_ms: from admission until the model took it.
        batch_requests: how many the model took at once.
    """

    outcome: Answered | GenrecError
    recommender: Recommender
    queue_ms: float
    batch_requests: int


@dataclass(eq=False)
class Call(Generic[Answered]):
    """One `submit`.

    Attributes:
        loop: where the caller waits.
        handed_over: what it waits for.
        jobs: its requests.
        served: what became of those that are done, by place.
    """

    loop: asyncio.AbstractEventLoop
    handed_over: asyncio.Future[list[Served[Answered]]]
    jobs: list[Job] = field(default_factory=list)
    served: dict[int, Served[Answered]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all of it is done."""
        return len(self.served) == len(self.jobs)

    def settle(self, failure: GenrecError | None = None) -> None:
        """Let the caller go, with its outcomes or with a failure. To be called on the loop.

        An answer, the watchdog, or the caller by leaving: whoever is first settles a call.
        """
        if self.handed_over.done():
            return
        if failure is None:
            self.handed_over.set_result([self.served[place] for place in range(len(self.jobs))])
        else:
            self.handed_over.set_exception(failure)


def settle_all(calls: Sequence[Call[Answered]], failure: GenrecError | None = None) -> None:
    """Settle calls of one loop from any thread. The loop is woken once, however many they are."""

    def settle() -> None:
        for call in calls:
            call.settle(failure)

    if calls:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            calls[0].loop.call_soon_threadsafe(settle)
