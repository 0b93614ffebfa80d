"""What Prometheus reads. Labels are few and closed: route templates, statuses, reasons; never an id or a path."""

import sys
from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from genrec.answers import Answer
from genrec.availability import Availability
from genrec.errors import EngineError, EngineLost, GenrecError, IllegalBeam, InvalidOutput, OutOfMemory
from service.inference import Batch, InferenceThread

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ITEMS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_CANDIDATES = (1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

REJECTIONS = ("overloaded", "not_ready", "deadline_exceeded", "disconnected")
FAILURES = {
    IllegalBeam: "illegal_beam",
    InvalidOutput: "invalid_output",
    OutOfMemory: "out_of_memory",
    EngineLost: "lost",
    EngineError: "other",
}
"""From an error of the engine to its label, the narrowest class first."""
RELOADS = ("swapped", "refused", "rolled_back")


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody plots
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("genrec_requests", "HTTP requests answered.", ["endpoint", "status"], registry=registry)
        self.request_seconds = Histogram(
            "genrec_request_seconds", "Time to answer.", ["endpoint"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "genrec_stage_seconds", "Time by stage of an answer.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.rejected = Counter(
            "genrec_rejected", "Requests to recommend or score that got no answer.", ["reason"], registry=registry
        )
        self.connections_refused = Counter(
            "genrec_connections_refused",
            "Connections ended before a request of theirs was whole, or with an answer nobody read.",
            ["reason"],
            registry=registry,
        )
        self.history_items = Histogram(
            "genrec_history_items", "Items of a history as sent.", buckets=_ITEMS, registry=registry
        )
        self.unknown_items = Counter("genrec_unknown_items", "History items not in the catalog.", registry=registry)
        self.candidates = Histogram(
            "genrec_candidates", "Candidates of a request to score.", buckets=_CANDIDATES, registry=registry
        )
        self.fallback = Counter(
            "genrec_fallback", "Answers that did not come from the model.", ["reason"], registry=registry
        )
        self.results_short = Counter("genrec_results_short", "Answers of fewer than k items.", registry=registry)
        self.queue_depth = Gauge("genrec_queue_depth", "Requests admitted and not yet answered.", registry=registry)
        self.inflight_beam_rows = Gauge(
            "genrec_inflight_beam_rows", "Beam rows admitted and not yet answered.", registry=registry
        )
        self.max_queue_rows = Gauge(
            "genrec_max_queue_rows", "Beam rows that there is room for; more is told 429.", registry=registry
        )
        self.batch_size = Histogram(
            "genrec_batch_size", "Requests that the model took at once.", buckets=_REQUESTS, registry=registry
        )
        self.batch_padding_ratio = Histogram(
            "genrec_batch_padding_ratio",
            "Part of a batch's histories that would only fill up the shorter ones.",
            buckets=_RATIOS,
            registry=registry,
        )
        self.engine_failures = Counter(
            "genrec_engine_failures", "Requests that the model failed at.", ["kind"], registry=registry
        )
        self.illegal_beams = Counter(
            "genrec_illegal_beams",
            "Searches refused because they gave what no search can: a fault of ours. Must stay 0.",
            registry=registry,
        )
        self.reloads = Counter("genrec_reloads", "Bundles asked to be served.", ["outcome"], registry=registry)
        self.gpu_memory_bytes = Gauge(
            "genrec_gpu_memory_bytes", "GPU memory that this process holds; 0 on a CPU.", registry=registry
        )
        self.ready = Gauge("genrec_ready", "1 while /ready says 200.", registry=registry)
        self.catalog_version = Gauge(
            "genrec_catalog_version", "Grows with every change of which items are off.", registry=registry
        )
        self.items_off = Gauge("genrec_items_off", "Items of the bundle served that are off.", registry=registry)
        self.model_info = Gauge(
            "genrec_model_info", "The bundle served; always 1.", ["name", "version", "device"], registry=registry
        )
        self.model_load_seconds = Gauge(
            "genrec_model_load_seconds", "Time to load, verify and replay the bundle.", registry=registry
        )

        _seed(self.rejected, REJECTIONS)
        _seed(self.engine_failures, FAILURES.values())
        _seed(self.reloads, RELOADS)
        _seed(self.fallback, ("unknown_history", "empty_history"))

    def watch(
        self, inference: InferenceThread, availability: Callable[[], Availability | None], max_queue_rows: int
    ) -> None:
        """Read these when they are asked for, not when they change."""
        self.queue_depth.set_function(lambda: float(inference.depth))
        self.inflight_beam_rows.set_function(lambda: float(inference.rows))
        self.max_queue_rows.set(max_queue_rows)
        self.ready.set_function(lambda: float(inference.state == "ready"))
        self.catalog_version.set_function(lambda: float(known.version if (known := availability()) else 0))
        self.items_off.set_function(lambda: float(known.items_off if (known := availability()) else 0))
        self.gpu_memory_bytes.set_function(lambda: float(_gpu_memory_bytes()))

    def serve(self, name: str, version: str, device: str) -> None:
        """Say which bundle is served, and of no other."""
        self.model_info.clear()
        self.model_info.labels(name, version, device).set(1)

    def observe_batch(self, batch: Batch) -> None:
        """Count what the model was given at once, and what it failed at. From any thread."""
        self.batch_size.observe(batch.requests)
        lengths = [outcome.history_used for outcome in batch.outcomes if isinstance(outcome, Answer)]
        if any(lengths):
            self.batch_padding_ratio.observe(1 - sum(lengths) / (len(lengths) * max(lengths)))
        for failure in batch.failures:
            self.count_failure(failure)

    def count_failure(self, failure: GenrecError) -> None:
        """Count a request that ended in an error, if it was the model's."""
        kind = next((kind for error, kind in FAILURES.items() if isinstance(failure, error)), None)
        if kind is not None:
            self.engine_failures.labels(kind).inc()
        if isinstance(failure, IllegalBeam):
            self.illegal_beams.inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


def _seed(counter: Counter, values: Iterable[str]) -> None:
    # A series that first appears with its first increment has no increase that an alert could see.
    for value in values:
        counter.labels(value)


def _gpu_memory_bytes() -> int:
    torch = sys.modules.get("torch")  # which is not there before a bundle is loaded
    return torch.cuda.memory_reserved() if torch is not None and torch.cuda.is_initialized() else 0
