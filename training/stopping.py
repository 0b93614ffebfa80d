"""SIGTERM while training: elsewhere it ends the run where it stands, while weights are fitted it is noted until a step
is done. Knows no Trainer.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from genrec.errors import Stopped

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises.

    Raises:
        Stopped: it came.
    """

    def stop(*_: object) -> None:
        raise Stopped("stopped by SIGTERM; the same command goes on after the last stage that was finished.")

    with _handled(stop):
        yield


@contextmanager
def sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGTERM is noted only; the function tells whether it came."""
    came = threading.Event()
    with _handled(lambda *_: came.set()):
        yield came.is_set


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread alone
        yield
        return
    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
