"""The output directory by itself; what a killed job leaves is in test_score_resume.py."""

from pathlib import Path

import pytest

from genrec.errors import InputError, LockedError
from service import score_output
from service.score_commit import Commits
from service.score_output import ScoreOutput, held, worked_in
from service.score_part import ScoredRow
from service.score_plan import Plan, ShardSpan, Source

JOB = {"output_format": "jsonl", "k": 10}
ROWS = [ScoredRow("a", [], None, [], None), ScoredRow.failed("b", "bad")]


def plan(*num_rows: int) -> Plan:
    spans = tuple(ShardSpan(number, 0, rows, 0) for number, rows in enumerate(num_rows))
    return Plan(Source(Path("rows.jsonl"), "", 0, 0), spans)


def commit(output: ScoreOutput, number: int) -> None:
    output.committed[number] = Commits(output.directory, JOB).commit(number, ROWS)


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path):
    with held(tmp_path):
        commit(ScoreOutput.open(tmp_path, JOB), 7)
        again = ScoreOutput.open(tmp_path, JOB)
    assert list(again.committed) == [7]
    assert (again.num_rows, again.num_bad_rows) == (2, 1)
    assert not again.finished


def test_the_shards_that_are_not_committed_are_missing(tmp_path):
    with held(tmp_path):
        output = ScoreOutput.open(tmp_path, JOB)
        commit(output, 1)
        assert [span.number for span in output.missing(plan(2, 2, 2))] == [0, 2]


@pytest.mark.parametrize(("shards", "in_all"), [((3,), 3), ((1, 1), 2), ((), 0), ((1, 2), 3)])
def test_a_job_whose_parts_are_not_what_was_read_is_not_done(tmp_path, shards, in_all):
    with held(tmp_path):
        output = ScoreOutput.open(tmp_path, JOB)
        commit(output, 0)
        with pytest.raises(InputError, match=f"holds 2 rows in 1 parts, the input {in_all} in {len(shards)}"):
            output.finish(plan(*shards))
        assert not output.finished
        assert not (tmp_path / "_SUCCESS").exists()
        output.finish(plan(2))
        assert output.finished


def test_success_is_never_there_without_a_manifest(tmp_path, monkeypatch):
    with held(tmp_path):
        output = ScoreOutput.open(tmp_path, JOB)
        output.finish(plan())
        there = []
        monkeypatch.setattr(
            "service.score_output.sync",
            lambda path: there.append([(tmp_path / name).exists() for name in ("_SUCCESS", "_MANIFEST.json")]),
        )
        output.reopen()
    assert there == [[False, True], [False, False]]


def test_a_job_file_that_is_no_json_is_refused_and_may_be_overwritten(tmp_path):
    with held(tmp_path):
        commit(ScoreOutput.open(tmp_path, JOB), 0)
        (tmp_path / "_JOB.json").write_text("{")
        with pytest.raises(InputError, match=r"_JOB.json is damaged; --overwrite starts again"):
            ScoreOutput.open(tmp_path, JOB)
        assert not ScoreOutput.open(tmp_path, JOB, overwrite=True).committed


def test_a_place_where_nothing_can_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=f"cannot write in {tmp_path / 'file' / 'out'}: "),
        held(tmp_path / "file" / "out"),
    ):
        pass


def test_while_one_holds_it_another_is_refused_and_workers_are_not(tmp_path):
    with held(tmp_path):
        with pytest.raises(LockedError, match="is being written by another run"), held(tmp_path):
            pass
        with worked_in(tmp_path), worked_in(tmp_path):
            pass
    with held(tmp_path):
        pass


def test_while_a_worker_of_a_run_that_is_gone_lives_no_other_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(score_output, "WORKERS_END_S", 0.0)
    with held(tmp_path):
        worker = worked_in(tmp_path)
        worker.__enter__()
    with pytest.raises(LockedError, match="workers of a run that was killed still end"), held(tmp_path):
        pass
    worker.__exit__(None, None, None)
    with held(tmp_path):
        pass


def test_a_run_that_begins_while_workers_of_the_last_one_end_waits_for_them(tmp_path, monkeypatch):
    with held(tmp_path):
        worker = worked_in(tmp_path)
        worker.__enter__()
    monkeypatch.setattr(score_output, "sleep", lambda _: worker.__exit__(None, None, None))
    with held(tmp_path):
        pass


def test_a_forgotten_worker_cannot_commit_once_another_job_has_begun(tmp_path):
    with held(tmp_path):
        ScoreOutput.open(tmp_path, JOB)
    forgotten = Commits(tmp_path, JOB)
    with held(tmp_path):
        with pytest.raises(InputError, match="No such file"):
            forgotten.commit(0, ROWS)
        output = ScoreOutput.open(tmp_path, JOB | {"k": 3}, overwrite=True)
        with pytest.raises(InputError, match="No such file"):
            forgotten.commit(0, ROWS)
        assert not list(tmp_path.glob("part-*"))
        assert not output.committed


def test_rows_that_were_made_for_a_job_are_kept_and_go_with_it(tmp_path):
    with held(tmp_path):
        (tmp_path / ".tmp" / "made").write_text("rows")
        output = ScoreOutput.open(tmp_path, JOB)
        output.take_input(tmp_path / ".tmp" / "made")
        assert (tmp_path / "_input.parquet").read_text() == "rows"
        ScoreOutput.open(tmp_path, JOB | {"k": 3}, overwrite=True)
        assert not (tmp_path / "_input.parquet").exists()
