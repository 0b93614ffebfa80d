"""Committing a part: whole, once, and the first of several attempts."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from genrec.errors import InputError
from service import score_commit
from service.score_commit import Commits
from service.score_part import ScoredRow

JOB = {"output_format": "jsonl", "k": 10}


def rows(user_id: str) -> list[ScoredRow]:
    return [ScoredRow(user_id, [], None, [], None)]


@pytest.fixture
def commits(tmp_path: Path) -> Commits:
    made = Commits(tmp_path, JOB)
    made.prepare()
    return made


def test_a_committed_part_is_found_with_its_record(commits):
    record = commits.commit(3, rows("a"))
    assert commits.whole() == {3: record}
    assert (record.file, record.rows, record.bad_rows) == ("part-00003.jsonl", 1, 0)
    assert json.loads((commits.directory / record.file).read_text())["user_id"] == "a"


def test_of_two_attempts_that_differ_the_first_one_stays_and_both_have_its_record(commits):
    first = commits.commit(0, rows("a"))
    assert Commits(commits.directory, JOB).commit(0, rows("b")) == first
    assert commits.whole() == {0: first}


def test_a_part_or_record_that_is_damaged_does_not_win(commits):
    commits.commit(0, rows("a"))
    (commits.directory / "part-00000.jsonl").write_text("{}")
    second = commits.commit(0, rows("b"))
    assert commits.whole() == {0: second}
    record = commits.directory / "_commits" / "part-00000.json"
    record.write_text(record.read_text().replace('"rows": 1', '"rows": 2'))
    assert commits.whole() == {}
    third = commits.commit(0, rows("c"))
    assert commits.whole() == {0: third}


def _race(directory: Path, user_id: str, begin: "multiprocessing.synchronize.Barrier") -> None:
    for number in range(50):
        begin.wait()
        Commits(directory, JOB).commit(number, rows(user_id))


def test_processes_that_race_for_a_shard_leave_one_whole_part(commits):
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(3)
    racers = [context.Process(target=_race, args=(commits.directory, name, begin)) for name in ("a", "bb", "ccc")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert list(commits.whole()) == list(range(50))


def test_two_attempts_write_under_names_of_their_own(commits, monkeypatch):
    names = []
    real = score_commit._write_aside
    monkeypatch.setattr(score_commit, "_write_aside", lambda file, content: (names.append(file), real(file, content)))
    commits.commit(0, rows("a"))
    (commits.directory / "part-00000.jsonl").unlink()
    commits.commit(0, rows("a"))
    assert len({*names}) == 4


def test_a_full_disk_is_a_sentence_and_commits_nothing(commits, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(score_commit, "_write_aside", full)
    with pytest.raises(InputError, match=f"cannot write in {commits.directory}: No space left on device; mend that"):
        commits.commit(0, rows("a"))
    assert commits.whole() == {}


def test_files_that_are_no_records_are_passed_over(commits):
    for name in ("part-x.json", "part-.json", "part-00001.json"):
        (commits.directory / "_commits" / name).write_text("{}")
    assert commits.whole() == {}
