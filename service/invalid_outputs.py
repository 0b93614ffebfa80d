"""When a model that now and then answers nonsense can no longer be trusted with the rest."""

from collections import deque

WINDOW_S = 60.0
TOO_MANY = 3
"""As many within the window: then it is not a request that is poisoned."""


class InvalidOutputs:
    """The answers of late that were not finite, or not answers at all."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=TOO_MANY)

    def note(self, count: int, now: float) -> None:
        """`count` more of them, at the time `now` in seconds."""
        self._times.extend([now] * min(count, TOO_MANY))

    def too_many(self, now: float) -> bool:
        """Whether there were so many of late that the service should not be asked."""
        return len(self._times) == TOO_MANY and now - self._times[0] < WINDOW_S
