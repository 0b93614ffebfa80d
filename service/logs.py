"""Structured logs on stderr: one JSON object a line, or columns for people; uvicorn and libraries included."""

import logging
import sys
from collections.abc import Sequence
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def configure_logs(log_format: Literal["auto", "json", "console"], stream: TextIO | None = None) -> None:
    """Send everything that logs through one renderer. Call it once, after the libraries are imported.

    Args:
        log_format: auto is console on a terminal, else json.
        stream: where to; stderr unless given.
    """
    people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        *([] if people else [structlog.stdlib.add_logger_name]),  # a line for people ends where it can be copied
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=())],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(people)],
        )
    )
    _adopt_loggers()
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the service says itself when it starts and stops


def _renderer(people: bool) -> Sequence[Processor]:
    if people:
        # The renderer's own choice would print every local variable of a traceback: what users sent is among them.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    # Python's own JSON: every control character and line separator is escaped, so a line is an event.
    return [structlog.processors.format_exc_info, _event_first, structlog.processors.JSONRenderer()]


def _event_first(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    lead = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return {**lead, **event}


def _adopt_loggers() -> None:
    # Libraries that bring a handler of their own (transformers, uvicorn) would write lines that are not ours.
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers = []
            logger.propagate = True
