"""How far a job is, as a line now and then."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic

PROGRESS_S = 5.0


class Progress:
    """Counts the rows of all workers; says how many are done, rows/s since it began, time left."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.begin(0, 0)

    def begin(self, in_all: int, before: int) -> None:
        """Scoring begins: of `in_all` rows so many are there already."""
        self._in_all, self._before = in_all, before
        self._done: dict[int, int] = {}
        self._began = self._said = monotonic()

    def tell(self, shard: int, rows: int) -> None:
        """Of a shard so many rows are done, those told before included."""
        self._done[shard] = rows
        now = monotonic()
        if now - self._said < PROGRESS_S:
            return
        self._said = now
        done = sum(self._done.values())
        rate = done / (now - self._began)
        there = self._before + done
        left = timedelta(seconds=round((self._in_all - there) / rate))
        self._say(f"{there:,} of {self._in_all:,} rows, {rate:.1f} rows/s, {left} left")
