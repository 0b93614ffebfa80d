"""What leaves the process as a trace, seen by an exporter in memory."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service import tracing
from tests.service.fakes import UNANSWERABLE, serving

pytestmark = pytest.mark.anyio

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}


@pytest.fixture
def exported(monkeypatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # the public setter works once a process
    return exporter


def named(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    [span] = [span for span in spans if span.name == name]
    return span


async def test_the_stages_of_an_answer_are_children_one_after_another(exported):
    async with serving() as running:
        await running.recommend("1", k=3)
    spans = exported.get_finished_spans()
    server = named(spans, "POST /recommend")
    queue, encode, decode = (named(spans, name) for name in ("queue", "encode", "decode"))
    assert {span.parent.span_id for span in (queue, encode, decode)} == {server.context.span_id}
    assert server.start_time <= queue.start_time
    assert (queue.end_time, encode.end_time) == (encode.start_time, decode.start_time)
    assert encode.end_time - encode.start_time == 250_000  # as the recommender says, in nanoseconds
    assert decode.end_time - decode.start_time == 1_500_000
    assert decode.attributes["genrec.k"] == 3
    assert decode.attributes["genrec.batch"] == 1


async def test_a_callers_trace_goes_on_and_its_id_is_in_the_log(exported, logged):
    async with serving() as running:
        await running.client.post("/recommend", json={"history": ["1"]}, headers=PARENT)
        await running.client.get("/v1/items")
    spans = exported.get_finished_spans()
    server = named(spans, "POST /recommend")
    assert (f"{server.context.trace_id:032x}", server.parent.is_remote) == (TRACE_ID, True)
    first, second = [event["trace_id"] for event in logged if event["event"] == "request"]
    assert (first, second) == (TRACE_ID, f"{named(spans, 'GET /v1/items').context.trace_id:032x}")


async def test_what_is_not_sampled_is_not_drawn(exported, logged):
    async with serving() as running:
        headers = {"traceparent": PARENT["traceparent"][:-1] + "0"}
        await running.client.post("/recommend", json={"history": ["1"]}, headers=headers)
    assert not exported.get_finished_spans()
    assert not [event for event in logged if "trace_id" in event]


async def test_no_span_carries_what_was_sent(exported):
    canary = "canary-5f1e"
    headers = {"authorization": f"Bearer {canary}", "x-api-key": canary, "x-request-id": canary}
    async with serving() as running:
        running.client.headers.update(headers)
        await running.recommend("1", canary, UNANSWERABLE)
        await running.recommend("1", canary, exclude=[canary], request_id=canary)
        await running.client.post("/recommend", json={canary: canary})
        await running.client.post("/v1/score", json={"history": ["1"], "candidates": [canary]})
        for path in (f"/v1/items/{canary}", f"/v1/items/{canary}/similar", f"/v1/items?q={canary}", f"/{canary}"):
            await running.client.get(path)
    spans = exported.get_finished_spans()
    assert len(spans) >= 8
    assert canary not in "".join(span.to_json() for span in spans)


async def test_a_request_that_reached_no_model_has_no_stages(exported):
    async with serving() as running:
        await running.recommend("1", k=0)
        await running.recommend(UNANSWERABLE)
    assert [span.name for span in exported.get_finished_spans()] == ["POST /recommend"] * 2


async def test_probes_and_scrapes_are_not_traced(exported):
    async with serving() as running:
        for path in ("/health", "/ready", "/metrics"):
            await running.client.get(path)
    assert not exported.get_finished_spans()


async def test_of_what_is_logged_only_counts_become_attributes(exported):
    tracing.trace_stages(0.0, {"decode": 1.0}, {"k": 3, "code": "internal", "reason": "of Star Wars", "none": None})
    [span] = exported.get_finished_spans()
    assert dict(span.attributes) == {"genrec.k": 3}


async def test_without_a_provider_nothing_is_drawn(logged, monkeypatch):
    monkeypatch.setattr("service.middleware.trace_stages", None)
    async with serving() as running:
        assert (await running.recommend("1")).status_code == 200
    assert not [event for event in logged if "trace_id" in event]


class Collector(BaseHTTPRequestHandler):
    """Takes what is exported to it."""

    taken: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self):
        self.taken.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


SERVE_ONE = """
import asyncio, sys
from service.app import create_app
from tests.service.fakes import FakeRecommender, eventually, send_raw, some_settings

async def main():
    app = create_app(some_settings(), lambda *_, **__: FakeRecommender())
    said, told = asyncio.Queue(), asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, said.get, told.put))
    for step in ("startup", "shutdown"):  # exporters are made and emptied by these, as a server sends them
        await said.put({"type": "lifespan." + step})
        assert (await told.get())["type"] == "lifespan." + step + ".complete"
        if step == "startup":
            await eventually(lambda: app.state.service.inference.state == "ready")
            assert (await send_raw(app, b'{"history": ["1"]}')).status == 200
    await life

asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk.trace")))
"""


@pytest.mark.system
@pytest.mark.parametrize("on", [True, False])
def test_the_standard_variable_alone_switches_it_on(on):
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Collector.taken.clear()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        if on:
            environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        command = [sys.executable, "-W", "ignore", "-c", SERVE_ONE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        server.shutdown()
    assert [path for path, _ in Collector.taken] == (["/v1/traces"] if on else [])
    assert all(b"decode" in body and b"POST /recommend" in body for _, body in Collector.taken)
    loaded = json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    assert bool(loaded) is on  # off, the SDK is not even imported
