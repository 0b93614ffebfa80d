"""New filters, worked out before the model is asked: a pass over millions of items is nobody's to wait for but theirs.

The model's thread would do it too, at the first request that has the filter; but then everyone waits with it.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from genrec.filters import Filter
from genrec.recommender import Recommender
from service.errors import DeadlineExceeded, Overloaded

MAX_WAITING = 64
"""Filters that wait to be worked out; at two million items each takes up to a tenth of a second."""


class FilterThread:
    """One thread, so that filters take one core at most. To be used on one event loop."""

    def __init__(self) -> None:
        """The thread starts with the first filter that is new."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="filters")
        self._waiting = 0

    async def ready(self, recommender: Recommender, filters: Sequence[Filter | None], deadline: float) -> None:
        """Return when `recommender` has all of `filters` worked out; at once where it has.

        Args:
            recommender: who will be asked.
            filters: which fit its catalog.
            deadline: on the clock of `time.monotonic`, seconds.

        Raises:
            Overloaded: too many wait already. Nothing was computed.
            DeadlineExceeded: the deadline came first.
        """
        new = [asked for asked in filters if not recommender.knows(asked)]
        if not new:
            return
        if self._waiting and self._waiting + len(new) > MAX_WAITING:
            raise Overloaded(f"{self._waiting} new filters are being worked out; try again shortly.")
        self._waiting += len(new)
        try:
            async with asyncio.timeout(deadline - monotonic()):
                for asked in new:
                    await asyncio.get_running_loop().run_in_executor(self._pool, recommender.prepare, asked)
        except TimeoutError as error:
            raise DeadlineExceeded("The deadline passed before the filter was worked out.") from error
        finally:
            self._waiting -= len(new)
