"""A worker by itself: what it is told, what it refuses, and that it could be anywhere."""

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from genrec.errors import DataError, InputError, LockedError, RequestError
from service import score_output
from service.score_output import ScoreOutput, held
from service.score_plan import Plan
from service.score_task import Asked, ScoreTask
from service.score_worker import ScoreWorker
from tests.service import scoring
from tests.service.scoring import some_rows, write_rows

recommender, model = scoring.recommender, scoring.model


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.of(write_rows(tmp_path / "rows.jsonl", some_rows(25)), 10)


@pytest.fixture
def task(causal_bundle_path: Path, plan: Plan, tmp_path: Path) -> Iterator[ScoreTask]:
    with held(tmp_path / "out"):
        yield ScoreTask(
            bundle=causal_bundle_path,
            device="cpu",
            dtype="auto",
            engine="auto",
            threads=1,
            source=plan.source,
            output=tmp_path / "out",
            part_format="jsonl",
            asked=Asked(k=4, num_beams=None, exclude_history=None, prove_exact=False),
            batch_size=8,
            shard_rows=10,
            errors="keep",
        )


def opened(task: ScoreTask) -> ScoreWorker:
    """A worker whose output is open for what it computes."""
    worker = ScoreWorker(task)
    ScoreOutput.open(task.output, {**task.settings, **worker.computed_with})
    return worker


def test_shards_are_scored_in_any_order_and_each_is_committed(model, task, plan):
    worker, told = opened(task), []
    records = [worker.score(span, told.append) for span in reversed(plan.spans)]
    assert [(record.file, record.rows) for record in records] == [
        ("part-00002.jsonl", 5), ("part-00001.jsonl", 10), ("part-00000.jsonl", 10),
    ]  # fmt: skip
    assert told == [5, 8, 10, 8, 10]
    worker.close()


def test_what_a_worker_is_told_is_plain_data(task, plan):
    for told in (task, plan.spans[0], plan.source):
        assert pickle.loads(pickle.dumps(told)) == told


def test_what_an_output_depends_on_is_what_was_asked_and_what_computes(model, task):
    worker = ScoreWorker(task)
    assert not {*task.settings} & {*worker.computed_with}
    assert {*task.settings} == {
        "input_sha256", "k", "num_beams", "exclude_history", "prove_exact", "batch_size", "shard_rows", "output_format",
        "threads",
    }  # fmt: skip
    assert {*worker.computed_with} == {
        "bundle", "engine", "dtype", "device", "processor", "genrec_version", "torch_version", "transformers_version",
        "pyarrow_version",
    }  # fmt: skip
    worker.close()


def test_a_worker_of_another_job_commits_nothing(model, task, plan):
    opened(task).close()
    other = ScoreWorker(replace(task, asked=replace(task.asked, k=5)))
    with pytest.raises(InputError, match=r"a worker would not compute what .* holds: k was 4, is 5"):
        other.score(plan.spans[0])
    other.close()
    assert not list(task.output.glob("part-*"))


def test_an_input_that_was_changed_is_noticed_before_a_shard_of_it_is_committed(model, task, plan):
    worker = opened(task)
    worker.score(plan.spans[0])
    os.utime(plan.source.path, ns=(0, plan.source.modified_ns + 1))
    with pytest.raises(DataError, match="was changed while it was read"):
        worker.score(plan.spans[1])
    worker.close()
    assert [file.name for file in task.output.glob("part-*")] == ["part-00000.jsonl"]


def test_with_errors_stop_the_first_bad_row_is_named_as_the_input_counts(model, task, tmp_path):
    rows = some_rows(25)
    rows[17]["k"] = 51
    plan = Plan.of(write_rows(tmp_path / "rows.jsonl", rows), 10)
    worker = opened(replace(task, source=plan.source, errors="stop"))
    with pytest.raises(DataError, match=r"rows\.jsonl, row 18: /k k must be from 1 to 50"):
        worker.score(plan.spans[1])
    worker.close()
    assert not list(task.output.glob("part-*"))


def test_what_the_bundle_does_not_give_is_refused_before_any_row(model, task):
    with pytest.raises(RequestError, match="k must be from 1 to 50"):
        ScoreWorker(replace(task, asked=replace(task.asked, k=51)))


def test_until_it_is_closed_no_other_run_is_given_the_output(model, causal_bundle_path, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(score_output, "WORKERS_END_S", 0.0)
    with held(tmp_path / "out"):
        worker = ScoreWorker(
            ScoreTask(
                causal_bundle_path, "cpu", "auto", "auto", 1, plan.source, tmp_path / "out", "jsonl",
                Asked(4, None, None, False), 8, 10, "keep",
            )
        )  # fmt: skip
    with pytest.raises(LockedError), held(tmp_path / "out"):
        pass
    worker.close()
    with held(tmp_path / "out"):
        pass
