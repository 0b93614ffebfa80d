"""What each signal does to a server, without a socket: when it says that it stops, stops listening, and is cut."""

import signal

import pytest
import uvicorn

from service import draining
from service.draining import DrainingServer

pytestmark = pytest.mark.anyio


class Draining:
    """A server, how often it was told to drain, and a clock that is turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delay_s: float = 3.0) -> None:
        self.drains = 0
        self.now = 100.0
        monkeypatch.setattr(draining, "monotonic", lambda: self.now)
        self.server = DrainingServer(uvicorn.Config(lambda *_: None), delay_s, self.drain)  # type: ignore[arg-type]

    def drain(self) -> None:
        self.drains += 1

    async def ends(self) -> bool:
        """Whether the next tick ends the service."""
        return await self.server.on_tick(1)

    def signal(self, one: signal.Signals = signal.SIGTERM) -> None:
        self.server.handle_exit(one, None)


async def test_it_listens_on_for_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Draining(monkeypatch)
    assert not await stopping.ends()
    stopping.signal()
    assert stopping.drains == 1
    assert not await stopping.ends()
    stopping.now += 2.9
    assert not await stopping.ends()
    stopping.now += 0.2
    assert await stopping.ends()
    assert not stopping.server.force_exit


async def test_a_second_signal_does_not_wait_for_the_delay_and_a_third_not_for_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = Draining(monkeypatch)
    stopping.signal()
    stopping.signal()
    assert await stopping.ends()
    assert not stopping.server.force_exit
    stopping.signal()
    assert stopping.server.force_exit
    assert stopping.drains == 1


async def test_who_presses_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Draining(monkeypatch)
    stopping.signal(signal.SIGINT)
    assert stopping.drains == 1
    assert await stopping.ends()


async def test_ctrl_c_ends_the_delay_of_a_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Draining(monkeypatch)
    stopping.signal()
    stopping.signal(signal.SIGINT)
    assert await stopping.ends()
    assert not stopping.server.force_exit


async def test_without_a_delay_it_ends_at_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Draining(monkeypatch, delay_s=0.0)
    stopping.signal()
    assert await stopping.ends()
