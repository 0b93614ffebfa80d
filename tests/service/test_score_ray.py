"""What a worker on a cluster does with a shard, and what its driver makes of what it tells; Ray itself is not here."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genrec.errors import BundleError, DataError, EngineError, GenrecError, InputError, LockedError, OutOfMemory
from service import score_ray, score_worker
from service.ray_cluster import Share
from service.score_commit import ASIDE, PartRecord
from service.score_plan import ShardSpan, Source
from service.score_ray import RayWorkers, ShardScorer
from service.score_task import Asked, ScoreTask

RECORD = PartRecord(file="part-00003.parquet", rows=7, bad_rows=1, bytes=100, sha256="ab")
SPAN = ShardSpan(number=3, first_row=300, num_rows=7, start=2**40)
BATCH = {name: np.array([value]) for name, value in asdict(SPAN).items()}  # as Ray Data gives a row


class Worker:
    """Stands where `ScoreWorker` does."""

    made: int
    score: Callable[[ShardSpan], PartRecord]
    make: Callable[[], None]

    def __init__(self) -> None:
        self.made = 0
        self.scored: list[ShardSpan] = []
        self.score = lambda span: RECORD
        self.make = lambda: None

    def __call__(self, task: ScoreTask) -> Any:
        self.make()
        self.made += 1

        def score(span: ShardSpan) -> PartRecord:
            self.scored.append(span)
            return self.score(span)

        return SimpleNamespace(score=score, close=lambda: None, computed_with={"bundle": "tiny"})


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()
    monkeypatch.setattr(score_worker, "ScoreWorker", worker)
    return worker


@pytest.fixture
def task(tmp_path: Path) -> ScoreTask:
    (tmp_path / "out" / ASIDE).mkdir(parents=True)
    return ScoreTask(
        bundle=tmp_path / "bundle",
        device="auto",
        dtype="auto",
        engine="auto",
        threads=1,
        source=Source(tmp_path / "rows.jsonl", "ab", 10, 20),
        output=tmp_path / "out",
        part_format="parquet",
        asked=Asked(k=10, num_beams=None, exclude_history=None, prove_exact=False),
        batch_size=32,
        shard_rows=100,
        errors="keep",
    )


class Cluster:
    """Stands where a cluster does that was joined."""

    def __init__(self, num_gpus: int) -> None:
        self.num_gpus = num_gpus


class Told(RayWorkers):
    """Workers that told this, without Ray."""

    __slots__ = ("told",)

    def _records(self, spans: object) -> Iterator[dict[str, str]]:
        yield from self.told  # type: ignore[attr-defined]


def driver(task: ScoreTask, told: list[str]) -> RayWorkers:
    workers = Told(Cluster(0), task, Share(1), None)  # type: ignore[arg-type]
    object.__setattr__(workers, "told", [{"told": each} for each in told])
    return workers


def said(answer: dict[str, list[str]]) -> Any:
    (text,) = answer["told"]
    return json.loads(text)


def test_a_shard_is_scored_and_its_record_comes_back_by_way_of_text(worker: Worker, task: ScoreTask) -> None:
    told = ShardScorer(task)(BATCH)["told"]
    assert worker.scored == [SPAN]
    assert all(type(value) is int for value in asdict(worker.scored[0]).values())
    committed = []
    driver(task, told).run([SPAN], lambda span, record: committed.append((span, record)))
    assert committed == [(SPAN, RECORD)]


def test_the_bundle_is_loaded_with_the_first_shard_and_once(worker: Worker, task: ScoreTask) -> None:
    scorer = ShardScorer(task)
    assert worker.made == 0
    scorer(BATCH)
    scorer(BATCH)
    assert worker.made == 1


@pytest.mark.parametrize("raised", [DataError, BundleError, EngineError, OutOfMemory, InputError, LockedError])
def test_an_error_of_ours_in_a_worker_is_the_same_error_of_the_command(
    raised: type[GenrecError], worker: Worker, task: ScoreTask
) -> None:
    def fail(*_: object) -> PartRecord:
        raise raised("the sentence.")

    for place in ("make", "score"):
        setattr(worker, place, fail)
        with pytest.raises(GenrecError) as ended:
            driver(task, ShardScorer(task)(BATCH)["told"]).run([SPAN], lambda *_: pytest.fail("committed"))
        assert (type(ended.value), str(ended.value)) == (raised, "the sentence.")


def test_a_fault_of_ours_in_a_worker_is_not_hidden(worker: Worker, task: ScoreTask) -> None:
    def fail(span: ShardSpan) -> PartRecord:
        raise ZeroDivisionError

    worker.score = fail
    with pytest.raises(ZeroDivisionError):
        ShardScorer(task)(BATCH)


def test_a_shard_that_ends_three_workers_is_not_given_to_a_fourth(worker: Worker, task: ScoreTask) -> None:
    class Killed(BaseException):
        pass

    def kill(span: ShardSpan) -> PartRecord:
        raise Killed

    worker.score = kill
    for _ in range(3):
        with pytest.raises(Killed):
            ShardScorer(task)(BATCH)
    assert said(ShardScorer(task)(BATCH)) == {
        "error": "EngineError",
        "sentence": "rows 301 to 307 ended their worker 3 times, by using up its memory perhaps: give a smaller "
        "--batch-size or --shard-rows. Finished parts are kept.",
    }
    assert len(worker.scored) == 3
    other = {**BATCH, "number": np.array([4])}
    with pytest.raises(Killed):  # which others may still try
        ShardScorer(task)(other)


def test_a_worker_that_does_not_see_the_output_directory_says_so(worker: Worker, task: ScoreTask) -> None:
    elsewhere = replace(task, output=task.output / "elsewhere")
    told = said(ShardScorer(elsewhere)(BATCH))
    assert told["error"] == "InputError"
    assert told["sentence"].startswith(f"cannot write in {elsewhere.output}: No such file or directory")
    assert worker.made == 0


@pytest.mark.parametrize(
    ("device", "gpus", "found"),
    [
        ("auto", 0, ("cpu", Share(4))),
        ("auto", 2, ("cuda", Share(4, 1))),
        ("cpu", 2, ("cpu", Share(4))),
        ("cuda", 0, ("cuda", Share(4, 1))),  # which then fits nowhere, see `RayCluster.room`
    ],
)
def test_a_worker_takes_a_gpu_where_there_is_any(
    device: str, gpus: int, found: tuple[str, Share], task: ScoreTask
) -> None:
    workers = RayWorkers.of(Cluster(gpus), replace(task, device=device, threads=4), None)  # type: ignore[arg-type]
    assert (workers.task.device, workers.share) == found


def test_a_gpu_by_number_is_refused(task: ScoreTask) -> None:
    with pytest.raises(InputError, match="--device cuda:1 names a device of one machine"):
        RayWorkers.of(Cluster(2), replace(task, device="cuda:1"), None)  # type: ignore[arg-type]


def test_paths_are_those_of_this_directory_wherever_a_worker_runs(
    task: ScoreTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = replace(task, bundle=Path("b"), source=replace(task.source, path=Path("rows.jsonl")), output=Path("out"))
    found = RayWorkers.of(Cluster(0), relative, None).task  # type: ignore[arg-type]
    assert (found.bundle, found.source.path, found.output) == (
        tmp_path / "b",
        tmp_path / "rows.jsonl",
        tmp_path / "out",
    )


def test_a_worker_is_asked_what_it_computes_with(worker: Worker, task: ScoreTask) -> None:
    assert score_ray._heard(score_ray._computed_with(task)) == {"bundle": "tiny"}
