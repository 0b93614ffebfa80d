"""Traces: FastAPI's own span of a request, with what the model's part of it took below.

The standard variables of OpenTelemetry alone switch it on (`OTEL_EXPORTER_OTLP_ENDPOINT`) and steer it: what collects
traces sets them for every service alike, so one of ours would only be a second place to look. Without them no span is
made. No attribute carries an id of an item, a search text, a key or a body.
"""

from collections.abc import Mapping, MutableMapping
from time import monotonic, time_ns
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.trace import format_trace_id
from starlette.types import Scope

_UNTRACED = ("/health", "/ready", "/metrics")
_REDACTED = "REDACTED"


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in _UNTRACED


TELEMETRY: TelemetryConfig = {
    "auto_configure": True,  # exporters by the standard variables; without an endpoint there is none
    "metrics": False,  # Prometheus has them
    "logs": False,  # exceptions with their messages, which may hold what was sent
    "operation_spans": False,  # four more spans a request, for microseconds
    "exclude": _is_probe,
}
"""For `FastAPI(telemetry=…)`."""


def begin_trace(scope: Scope) -> str | None:
    """Take out of the current span what the caller sent in the address, before anything exports it.

    Returns:
        The trace's id as traceparent has it; None where nothing is traced.
    """
    span = trace.get_current_span()
    if not span.is_recording():
        return None
    span.set_attribute("url.path", _REDACTED)  # /v1/items/{item_id}; http.route has the template
    if scope["query_string"]:
        span.set_attribute("url.query", _REDACTED)
    return format_trace_id(span.get_span_context().trace_id)


def trace_stages(asked: float, timing_ms: Mapping[str, float], facts: Mapping[str, object]) -> None:
    """Draw the stages of an answer below the current span, at the times when they were.

    Args:
        asked: when the model was asked, on the clock of `time.monotonic`.
        timing_ms: stage -> milliseconds, one after another in order.
        facts: of the request; counts become attributes, whatever else it is does not.
    """
    counts = {f"genrec.{name}": value for name, value in facts.items() if isinstance(value, int)}
    tracer = trace.get_tracer("genrec")
    begin = time_ns() - _ns(monotonic() - asked)
    for stage, spent in timing_ms.items():
        end = begin + _ns(spent / 1e3)
        tracer.start_span(stage, start_time=begin, attributes=counts).end(end)
        begin = end


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
