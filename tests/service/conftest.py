"""Async tests run on asyncio, through the pytest plugin that anyio brings; what is logged is collected, not printed."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, Any]]]:
    """The events that the service logs during a test."""
    with structlog.testing.capture_logs() as events:
        yield events
