"""Which workers there are; what they do with each other in processes is in tests/system/test_score_kills.py."""

import pytest
import torch

from genrec.errors import BundleError, EngineError, RequestError
from service import score_workers
from service.score_commit import PartRecord
from service.score_plan import ShardSpan
from service.score_workers import WorkerProcesses

RECORD = PartRecord("part", 1, 0, 1, "")
SPANS = [ShardSpan(number, number, 1, 0) for number in range(4)]
FACTS = {"device": "cpu"}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.parametrize(
    ("device", "workers", "expected"),
    [
        ("auto", None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda", 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda:1", None, ["cuda:1"]),
        ("cuda:1", 2, ["cuda:1", "cuda:1"]),
    ],
)
def test_there_is_a_worker_for_each_gpu_that_may_be_used(gpus, device, workers, expected):
    assert score_workers._worker_devices(device, workers) == expected


def test_on_a_cpu_there_is_a_worker_for_each_core(monkeypatch):
    monkeypatch.setattr(score_workers.os, "sched_getaffinity", lambda _: {0, 1, 5})
    assert score_workers._worker_devices("cpu", None) == ["cpu"] * 3
    assert score_workers._worker_devices("cpu", 2) == ["cpu"] * 2


class Line:
    """What a worker says next, from a list; its end is None, and as often as it is asked."""

    def __init__(self, *said: object) -> None:
        self.said = list(said)
        self.given: list[ShardSpan] = []

    def recv(self) -> object:
        if not self.said or self.said[0] is None:
            raise EOFError
        return self.said.pop(0)

    def send(self, span: ShardSpan) -> None:
        self.given.append(span)

    def close(self) -> None:
        pass


class Process:
    exitcode = -9

    def kill(self) -> None:
        pass

    join = kill


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """The lines of the workers that will be started, in order."""
    waiting: list[Line] = []
    monkeypatch.setattr(
        score_workers._Worker, "start", lambda task: score_workers._Worker(task, Process(), waiting.pop(0))
    )
    monkeypatch.setattr(score_workers, "wait", lambda lines: [line for line in lines if line.said] or lines)
    monkeypatch.setattr(score_workers, "replace", lambda task, device: device)
    return waiting


def run(workers: WorkerProcesses, spans: list[ShardSpan]) -> list[int]:
    done: list[int] = []
    workers.run(spans, lambda span, record: done.append(span.number))
    return done


def test_shards_go_to_whoever_is_free_and_rows_are_told(lines):
    one, two = Line(FACTS, RECORD, score_workers._Rows(1), RECORD), Line(FACTS, RECORD, RECORD)
    lines += [one, two]
    told: list[tuple[int, int]] = []
    workers = WorkerProcesses("task", ["a", "b"], lambda shard, rows: told.append((shard, rows)))
    assert workers.computed_with() == FACTS
    assert sorted(run(workers, SPANS)) == [0, 1, 2, 3]
    assert sorted(span.number for span in one.given + two.given) == [0, 1, 2, 3]
    assert told == [(2, 1)]


def test_the_shard_of_a_worker_that_died_goes_to_the_next_one(lines):
    first, second = Line(FACTS, RECORD), Line(FACTS, RECORD, RECORD)
    lines += [first, second]
    assert run(WorkerProcesses("task", ["a"], lambda *_: None), SPANS[:3]) == [0, 1, 2]
    assert [span.number for span in first.given] == [0, 1]
    assert [span.number for span in second.given] == [1, 2]


@pytest.mark.parametrize("said", [[FACTS], []])
def test_three_deaths_at_one_shard_or_before_any_are_no_chance(lines, said):
    lines += [Line(*said) for _ in range(3)]
    with pytest.raises(
        EngineError, match=r"a worker ended (at rows 1 to 1|before its first row), by signal 9, Killed, 3"
    ):
        run(WorkerProcesses("task", ["a"], lambda *_: None), SPANS)
    assert not lines


def test_deaths_at_different_shards_are_counted_apart(lines):
    lines += [Line(FACTS), Line(FACTS, RECORD), Line(FACTS, RECORD), Line(FACTS, RECORD), Line(FACTS, RECORD)]
    assert run(WorkerProcesses("task", ["a"], lambda *_: None), SPANS) == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [BundleError("file x is damaged"), RequestError("k must be", "/k")])
def test_what_a_worker_refuses_is_refused_here(lines, error):
    lines += [Line(error)]
    with pytest.raises(type(error), match=str(error)):
        WorkerProcesses("task", ["a"], lambda *_: None).computed_with()
