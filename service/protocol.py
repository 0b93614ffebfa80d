"""One HTTP connection, bounded in time, bytes and number before anything of ours runs: uvicorn's protocol with limits.

What uvicorn 0.54 leaves open is closed here: nothing bounds how long a request takes to come, its head is buffered
without end, a slow reader keeps its answer in memory, and there is no end to connections. Requests that two servers
could read in two ways are refused, and nothing is read after them. Knows nothing of routes, but that probes get in when
the service is full.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, cast

import httptools
from prometheus_client import Counter
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from genrec.errors import GenrecError
from service.connection_limits import SPARE_CONNECTIONS, ConnectionLimits
from service.errors import HeadersTooLarge, MalformedRequest, TooManyConnections, TooSlow
from service.middleware import MAX_HEADER_BYTES, MAX_HEADERS
from service.probes import FULL, ProbesOnly, early_response
from service.request_head import AMBIGUOUS, fault_in

MAX_PIPELINED = 16
"""Requests that a client may send ahead of its answers; each waits in memory."""

_SLICE_BYTES = 16 * 1024
_MIN_READ_BYTES = 16 * 1024
_LINGER_S = 1.0
_MAX_LINGER_BYTES = 1024 * 1024


def bounded_protocol(limits: ConnectionLimits, refused: Counter) -> type["BoundedProtocol"]:
    """The protocol class to give to uvicorn.

    Args:
        limits: of each connection.
        refused: counts the connections that were ended, by reason.
    """
    attributes = {"limits": limits, "refused": refused}
    return cast(type[BoundedProtocol], type("BoundedProtocol", (BoundedProtocol,), attributes))


class _Phase(Enum):
    BETWEEN = "no request, or the last one came whole"
    HEAD = "waiting for the end of a head"
    BODY = "waiting for the end of a body"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by `bounded_protocol`, which sets the class attributes."""

    limits: ConnectionLimits
    refused: Counter

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (uvicorn's own)
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = cast(int, self.limits.keep_alive_timeout_s)  # handed to the loop: a float is as good
        self._phase = _Phase.HEAD  # a connection that never sends is late from its first moment
        self._began = self.loop.time()
        self._progress = False
        self._unread = 0  # bytes since something was last taken out of the parser: what it may hold
        self._fault: GenrecError | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()  # oldest first; all but that one wait in the pipeline
        self._deaf = False  # no more is read from this connection
        self._closed = False
        self._heard = False
        self._lingered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._cycle_transport: asyncio.Transport | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._cycle_transport = cast(asyncio.Transport, _CycleTransport(transport, self._close))
        self._set_timer(self.limits.header_timeout_s, self._check_receipt)
        crowd = sum(_port(other) == _port(self) for other in self.connections)
        if crowd > self.limits.max_connections + SPARE_CONNECTIONS:
            self._phase = _Phase.BETWEEN  # at once: those that linger would be a crowd of their own
            self._refuse(TooManyConnections(FULL), "too_many_connections")
        elif crowd > self.limits.max_connections:
            self.app = cast(Any, ProbesOnly(cast(ASGIApp, self.app), self._count))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._closed = self._deaf = True
        for timer in (self._timer, self._write_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        for cycle in self._unanswered:  # uvicorn tells only the one that came last
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. Parsed in slices, so that no more is buffered than is allowed."""
        if self._deaf:
            self._discard(data)
            return
        self._heard = True
        self._unset_keepalive_if_required()
        if self._phase is _Phase.BETWEEN:
            self._phase, self._began, self._unread = _Phase.HEAD, self.loop.time(), 0
        begin = 0
        while begin < len(data) and not self._deaf:
            end = begin + min(_SLICE_BYTES, MAX_HEADER_BYTES - self._unread)
            self._parse(data[begin:end])
            begin = end
        if self._phase is not _Phase.BETWEEN and self._timer is None and not self._deaf:
            self._set_timer(self._time_left(), self._check_receipt)

    def _parse(self, data: bytes) -> None:
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            fault, self._fault = self._fault, None
            reason = "head_too_large" if isinstance(fault, HeadersTooLarge) else "malformed"
            self._refuse(fault or MalformedRequest(AMBIGUOUS), reason)
            return
        except httptools.HttpParserUpgrade:
            # Answered as if it had not asked. What follows could be another protocol, so nothing is read.
            self._deaf = True
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self._close()
            return
        self._unread = 0 if self._progress else self._unread + len(data)
        if self._unread >= MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge(_TOO_LARGE), "head_too_large")

    # What the parser finds

    def on_message_begin(self) -> None:
        """A request begins, maybe before the last one is answered."""
        super().on_message_begin()
        if self._phase is _Phase.BETWEEN:  # in the middle of a slice: the bytes before it are not its own
            self._began, self._progress = self.loop.time(), True
        self._phase = _Phase.HEAD
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fail(MalformedRequest("Send fewer requests ahead of their answers."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or one of the trailers that may follow a chunked body: those are dropped."""
        if self._phase is _Phase.HEAD:
            super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._fail(HeadersTooLarge(_TOO_LARGE))

    def on_headers_complete(self) -> None:
        """The head is whole: from here on there is someone to answer."""
        version = self.parser.get_http_version()
        fault = fault_in(self.url, self.headers, version, upgrade=self.parser.should_upgrade())
        if fault is not None:
            self._fail(MalformedRequest(fault))
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, self._cycle_transport)
        self._phase, self._progress = _Phase.BODY, True
        self._unanswered.append(self.cycle)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._progress = True

    def on_body(self, body: bytes) -> None:
        """Bytes of the body, which the application may read now."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request came whole: how long it takes from here is the application's to bound."""
        self._phase, self._progress = _Phase.BETWEEN, True
        self._set_timer(None)
        super().on_message_complete()
        if self.cycle.response_complete and not self._deaf:  # it was answered before it came whole
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _fail(self, fault: GenrecError) -> None:
        self._fault = fault
        raise fault  # the parser stops, and `_parse` finds the fault

    # Time

    def pause_writing(self) -> None:
        """The client does not read its answer: from now on it has so long for every so many bytes."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _watch_reader(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self._check_reader, unsent)

    def _check_reader(self, unsent: int) -> None:
        if unsent - self.transport.get_write_buffer_size() >= _MIN_READ_BYTES:
            self._watch_reader()
        else:
            self._count("slow_reader")
            self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """The next request did not come."""
        self._close()

    def _time_left(self) -> float:
        limits = self.limits
        allowed = limits.header_timeout_s if self._phase is _Phase.HEAD else limits.receive_timeout_s
        return self._began + allowed - self.loop.time()

    def _check_receipt(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # it is we who do not read
            self._began = self.loop.time()
        if (left := self._time_left()) > 0:
            self._set_timer(left, self._check_receipt)
        elif not self._heard:
            self._count("silent")
            self._close()
        else:
            self._refuse(TooSlow(_SLOW), "slow_head" if self._phase is _Phase.HEAD else "slow_body")

    def _set_timer(self, delay_s: float | None, call: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(max(delay_s, 0), call) if delay_s is not None and call else None

    # The end

    def on_response_complete(self) -> None:
        """An answer was handed to the transport."""
        self._unanswered.popleft()
        if self._closed:
            return
        super().on_response_complete()
        if self._deaf and not self._unanswered:
            self._close()
        elif self._phase is not _Phase.BETWEEN:
            self._unset_keepalive_if_required()

    def _count(self, reason: str) -> None:
        self.refused.labels(reason).inc()

    def _refuse(self, error: GenrecError, reason: str) -> None:
        """Read no more, and tell why if it is this request's turn to be told anything."""
        self._count(reason)
        self._deaf = True
        self._set_timer(None)
        cycle = self.cycle if self._phase is _Phase.BODY else None
        pending = cycle is not None and not cycle.response_complete
        if len(self._unanswered) > pending:  # earlier requests are answered, then it ends
            if pending and self.pipeline:
                self.pipeline.popleft()
                self._unanswered.pop()
            return
        if cycle is not None:
            cycle.disconnected, cycle.waiting_for_100_continue = True, False
            cycle.message_event.set()
        if cycle is None or not cycle.response_started:
            self.transport.write(_reply(error))
        self._close()

    def _close(self) -> None:
        """End the connection such that the client can read what was sent to it.

        A socket closed with bytes unread resets the connection, which may take the answer with it (RFC 9112, 9.6). So
        while more of a request may come, say that nothing follows, and let go a little later.
        """
        if self._closed or self.transport.is_closing():
            self._closed = self._deaf = True
            return
        self._closed = self._deaf = True
        self._unset_keepalive_if_required()
        if self._phase is _Phase.BETWEEN:
            self._let_go()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_timer(_LINGER_S, self._let_go)

    def _discard(self, data: bytes) -> None:
        self._lingered += len(data)
        if self._lingered > _MAX_LINGER_BYTES:
            self._let_go()

    def _let_go(self) -> None:
        self._set_timer(None)
        self.transport.close()
        if self.transport.get_write_buffer_size() and self._write_timer is None:
            self._watch_reader()


class _CycleTransport:
    """What the answer to a request sees of its transport; closing goes through the protocol."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


_TOO_LARGE = f"Send at most {MAX_HEADERS} headers, and {MAX_HEADER_BYTES} bytes before the body."
_SLOW = "The request did not come whole in the time there is for it."


def _port(protocol: object) -> int | None:
    return protocol.server[1] if isinstance(protocol, HttpToolsProtocol) and protocol.server else None


def _reply(error: GenrecError) -> bytes:
    response = early_response(error)
    lines = [b"%s: %s\r\n" % header for header in response.raw_headers]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])
