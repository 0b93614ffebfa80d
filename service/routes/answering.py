"""What the routes that ask the model share: waiting for as long as the client does, and what it took."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from genrec.answers import Timing
from service.metrics import Metrics
from service.middleware import RequestRecord
from service.schemas import TimingMs

Waited = TypeVar("Waited")


async def while_connected(request: Request, work: Coroutine[Any, Any, Waited]) -> Waited:
    """Wait for `work`, and leave the queue when the client leaves: what nobody waits for is not computed.

    Raises:
        ClientDisconnect: the client has gone.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


def time_taken(timing: Timing, queue_ms: float, record: RequestRecord) -> TimingMs:
    """Where the time of an answer went, up to now."""
    return TimingMs(
        queue=round(queue_ms, 3),
        encode=round(timing.encode_ms, 3),
        decode=round(timing.decode_ms, 3),
        total=round(record.elapsed_ms, 3),
    )


def account_for(metrics: Metrics, timing: TimingMs, history: Sequence[str], unknown_items: Sequence[str]) -> None:
    """Count what every answer has: its stages, and the history that it was asked with."""
    for stage in ("queue", "encode", "decode"):
        metrics.stage_seconds.labels(stage).observe(getattr(timing, stage) / 1e3)
    metrics.history_items.observe(len(history))
    metrics.unknown_items.inc(len(unknown_items))


async def _gone(request: Request) -> None:
    # The body has been read: all that can still come is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass
