"""The output directory by itself; what a killed job leaves is in test_score.py."""

import pytest

from genrec.errors import InputError
from service.score_output import ScoreOutput, held
from service.score_part import ScoredRow

JOB = {"output_format": "jsonl", "k": 10}
ROWS = [ScoredRow("a", [], None, [], None), ScoredRow.failed("b", "bad")]


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path):
    with held(tmp_path):
        ScoreOutput.open(tmp_path, JOB).commit(7, ROWS)
        again = ScoreOutput.open(tmp_path, JOB)
    assert list(again.committed) == [7]
    assert (again.num_rows, again.num_bad_rows) == (2, 1)
    assert not again.finished


@pytest.mark.parametrize(("num_shards", "num_rows"), [(1, 3), (2, 2), (0, 2)])
def test_a_job_whose_parts_are_not_what_was_read_is_not_done(tmp_path, num_shards, num_rows):
    with held(tmp_path):
        output = ScoreOutput.open(tmp_path, JOB)
        output.commit(0, ROWS)
        with pytest.raises(InputError, match=f"holds 2 rows in 1 parts, the input {num_rows} in {num_shards}"):
            output.finish(num_shards, num_rows)
        assert not output.finished
        assert not (tmp_path / "_SUCCESS").exists()
        output.finish(1, 2)
        assert output.finished


def test_success_is_never_there_without_a_manifest(tmp_path, monkeypatch):
    with held(tmp_path):
        output = ScoreOutput.open(tmp_path, JOB)
        output.finish(0, 0)
        there = []
        monkeypatch.setattr(
            "service.score_output.sync",
            lambda path: there.append([(tmp_path / name).exists() for name in ("_SUCCESS", "_MANIFEST.json")]),
        )
        output.reopen()
    assert there == [[False, True], [False, False]]


def test_a_job_file_that_is_no_json_is_refused_and_may_be_overwritten(tmp_path):
    with held(tmp_path):
        ScoreOutput.open(tmp_path, JOB).commit(0, ROWS)
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
