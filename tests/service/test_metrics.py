"""The counters themselves; that a service counts is in the tests of its routes."""

import pytest

from genrec.answers import Answer, Timing
from genrec.errors import EngineError, EngineLost, GenrecError, IllegalBeam, InvalidOutput, OutOfMemory, RequestError
from service.inference import Batch
from service.metrics import FAILURES, RELOADS, Metrics
from tests.service.fakes import UNANSWERABLE, serving


def value(metrics: Metrics, sample: str) -> float | None:
    lines = metrics.text().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == sample), None)


def test_a_batch_is_counted_with_what_failed_in_it():
    metrics = Metrics()
    failures: list[GenrecError] = [IllegalBeam(), InvalidOutput(), InvalidOutput(), OutOfMemory(), EngineLost()]
    metrics.observe_batch(Batch(12, 120, [0.001] * 12, [*failures, EngineError()]))
    metrics.observe_batch(Batch(1, 10, [0.0], []))
    assert value(metrics, "genrec_batch_size_count") == 2
    assert value(metrics, "genrec_batch_size_sum") == 13
    assert value(metrics, "genrec_illegal_beams_total") == 1
    counted = {kind: value(metrics, f'genrec_engine_failures_total{{kind="{kind}"}}') for kind in FAILURES.values()}
    assert counted == {"illegal_beam": 1, "invalid_output": 2, "out_of_memory": 1, "lost": 1, "other": 1}


def test_shorter_histories_of_a_batch_are_told_as_padding():
    metrics = Metrics()
    answers = [Answer((), used, (), False, None, 0, Timing(0.0, 0.0)) for used in (10, 5, 5, 0)]
    metrics.observe_batch(Batch(4, 40, [0.0] * 4, answers))
    assert value(metrics, "genrec_batch_padding_ratio_sum") == 0.5
    metrics.observe_batch(Batch(1, 10, [0.0], answers[-1:]))
    assert value(metrics, "genrec_batch_padding_ratio_count") == 1, "nothing was read for an empty history"


def test_a_request_that_was_wrong_is_no_failure_of_the_engine():
    metrics = Metrics()
    metrics.observe_batch(Batch(1, 10, [0.0], [RequestError("k must be from 1 to 20.", "/k")]))
    assert {value(metrics, f'genrec_engine_failures_total{{kind="{kind}"}}') for kind in FAILURES.values()} == {0}


@pytest.mark.parametrize(
    "sample",
    [
        "genrec_illegal_beams_total",
        *[f'genrec_reloads_total{{outcome="{outcome}"}}' for outcome in RELOADS],
        *[f'genrec_engine_failures_total{{kind="{kind}"}}' for kind in FAILURES.values()],
        *[f'genrec_rejected_total{{reason="{reason}"}}' for reason in ("overloaded", "not_ready", "disconnected")],
        "genrec_gpu_memory_bytes",
    ],
)
def test_what_an_alert_watches_is_there_before_it_happens(sample):
    assert value(Metrics(), sample) == 0


def test_one_bundle_is_told_at_a_time():
    metrics = Metrics()
    metrics.serve("a", "1", "cpu")
    metrics.serve("b", "2", "cpu")
    infos = [line for line in metrics.text().decode().splitlines() if line.startswith("genrec_model_info{")]
    assert infos == ['genrec_model_info{device="cpu",name="b",version="2"} 1.0']


@pytest.mark.anyio
async def test_a_service_tells_its_batches_and_the_room_of_its_queue():
    async with serving(max_queue_rows=777) as running:
        await running.recommend("1")
        await running.recommend(UNANSWERABLE)
        assert await running.metric("genrec_batch_size_count") == 2
        assert await running.metric("genrec_max_queue_rows") == 777
        assert await running.metric("genrec_inflight_beam_rows") == 0
        assert await running.metric('genrec_engine_failures_total{kind="other"}') == 1


@pytest.mark.anyio
async def test_no_label_grows_with_what_is_sent():
    async with serving() as running:
        await running.client.get("/metrics")
        series: list[list[str]] = []
        for round_ in range(2):
            for number in range(20):
                await running.recommend(f"no-{round_}-{number}", request_id=f"r{round_}-{number}")
                await running.client.get(f"/v1/items/{(number + round_) % 9}")
                await running.client.get(f"/no/{round_}/{number}")
            lines = (await running.client.get("/metrics")).text.splitlines()
            series.append([line.rpartition(" ")[0] for line in lines if line.startswith("genrec_")])
        assert series[0] == series[1]
