"""What Prometheus reads. Labels are few and closed: route templates, statuses, reasons; never an id or a path."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from genrec.availability import Availability

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ITEMS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_CANDIDATES = (1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


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

    def watch(
        self,
        queue_depth: Callable[[], int],
        ready: Callable[[], bool],
        availability: Callable[[], Availability | None],
    ) -> None:
        """Read these when they are asked for, not when they change."""
        self.queue_depth.set_function(lambda: float(queue_depth()))
        self.ready.set_function(lambda: float(ready()))
        self.catalog_version.set_function(lambda: float(known.version if (known := availability()) else 0))
        self.items_off.set_function(lambda: float(known.items_off if (known := availability()) else 0))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
