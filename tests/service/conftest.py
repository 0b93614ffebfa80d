"""Async tests run on asyncio, through the pytest plugin that anyio brings; what is logged is collected, not printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.state_directory import StateDirectory


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, Any]]]:
    """The events that the service logs during a test."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every state directory that a test leaves open, as the end of its process would."""
    opened: list[StateDirectory] = []
    open_it = StateDirectory.open

    def opening(path: Path) -> StateDirectory:
        opened.append(open_it(path))
        return opened[-1]

    monkeypatch.setattr(StateDirectory, "open", opening)
    yield
    for directory in opened:
        directory.close()
