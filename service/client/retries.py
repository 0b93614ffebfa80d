"""When to ask again, as arithmetic: knows no HTTP and never sleeps, so both clients share it and a test can run it dry.

Twenty lines of our own and not stamina or tenacity: both ask "which exceptions, which waits" and then sleep themselves,
which leaves the two rules that matter here, the server's Retry-After and the caller's one deadline over all attempts,
to a callback of ours in either case, and brings two distributions to an application that only wants a client.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and how soon. Waits are drawn from 0 to a bound that doubles, so that clients do not return together.

    Attributes:
        times: after the first attempt.
        base_s: the bound of the first wait, seconds.
        cap_s: no bound grows beyond this, seconds.
    """

    times: int = 3
    base_s: float = 0.1
    cap_s: float = 2.0

    def __post_init__(self) -> None:
        if self.times < 0 or self.base_s < 0 or self.cap_s < 0:
            raise ValueError(f"no number of {self} may be negative.")

    def bound_s(self, retry: int) -> float:
        """The longest wait before a retry, counted from 0."""
        return min(self.cap_s, self.base_s * 2.0 ** min(retry, 60))


class Attempts:
    """The attempts of one call."""

    def __init__(
        self,
        retries: Retries,
        timeout_s: float,
        clock: Callable[[], float] = monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._retries = retries
        self._clock = clock
        self._draw = draw
        self._deadline = clock() + timeout_s
        self._made = 0

    @property
    def left_s(self) -> float:
        """Seconds until the caller's deadline, never negative."""
        return max(0.0, self._deadline - self._clock())

    def wait_s(self, retry_after_s: float | None = None) -> float | None:
        """How long to wait before asking again; None not to: the retries are spent, or the wait would end too late.

        Args:
            retry_after_s: what the server asked for; never undercut, and spread like any other wait.
        """
        if self._made >= self._retries.times:
            return None
        wait = (retry_after_s or 0.0) + self._draw(0.0, self._retries.bound_s(self._made))
        self._made += 1
        return wait if wait < self.left_s else None
