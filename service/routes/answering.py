"""What the routes that ask the model share: waiting for as long as the client does, and what it took."""

import asyncio
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from genrec.answers import Timing
from service.metrics import Metrics
from service.middleware import RequestRecord, record_of
from service.schemas import TimingMs

Waited = TypeVar("Waited")


async def while_connected(request: Request, work: Coroutine[Any, Any, Waited]) -> Waited:
    """Wait for `work`, and leave the queue when the client leaves: what nobody waits for is not computed.

    Raises:
        ClientDisconnect: the client has gone.
    """
    record_of(request.scope).asked = monotonic()
    waiting = asyncio.current_task()
    over = False

    def leave(_: object) -> None:
        if waiting is not None and not over:
            waiting.cancel()

    gone = asyncio.ensure_future(_gone(request))
    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and waiting is not None and not waiting.uncancel():  # it was `leave`, and nobody else
            raise ClientDisconnect from None
        raise
    finally:
        over = True
        gone.cancel()


def time_taken(timing: Timing, queue_ms: float, record: RequestRecord) -> TimingMs:
    """Where the time of an answer went, up to now. The record keeps the slowest of a call with several."""
    for stage, spent in (("queue", queue_ms), ("encode", timing.encode_ms), ("decode", timing.decode_ms)):
        record.timing_ms[stage] = max(record.timing_ms.get(stage, 0.0), spent)
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
