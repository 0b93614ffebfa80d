"""A server that is told to stop: first it says so, then it stops listening, then it finishes what it has."""

import signal
from collections.abc import Callable
from time import monotonic
from types import FrameType

import uvicorn


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with a delay between SIGTERM and the end of listening.

    Whoever balances load needs seconds to see that /ready says 503; a listener that is closed at once resets the
    connections made meanwhile. A second signal does not wait for the delay, a third not for open requests.
    """

    def __init__(self, config: uvicorn.Config, drain_delay_s: float, drain: Callable[[], None]) -> None:
        """Nothing starts before `run`.

        Args:
            config: uvicorn's.
            drain_delay_s: from SIGTERM until nothing more is accepted. Ctrl-C does not wait.
            drain: called at the first signal.
        """
        super().__init__(config)
        self._drain_delay_s = drain_delay_s
        self._drain = drain
        self._listens_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See `uvicorn.Server`: called for each signal, in the main thread."""
        if self.should_exit:
            self.force_exit = True
        elif self._listens_until is not None or sig == signal.SIGINT:
            self.should_exit = True
        if self._listens_until is None:
            self._listens_until = monotonic() + self._drain_delay_s
            self._drain()

    async def on_tick(self, counter: int) -> bool:
        """See `uvicorn.Server`: called ten times a second; True ends the service."""
        if self._listens_until is not None and monotonic() >= self._listens_until:
            self.should_exit = True
        return await super().on_tick(counter)
