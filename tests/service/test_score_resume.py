"""`genrec score` killed, disturbed and started again. What needs a process that is really killed is marked system."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec.errors import InputError
from genrec.recommender import Recommender
from genrec.requests import Request
from service import score_commit
from service.score_job import to_json
from service.score_output import ScoreOutput, held
from tests.fakes import TinyShape, tiny_bundle
from tests.service import scoring
from tests.service.scoring import content_of, rows_of, score, some_rows, write_rows

ROOT = Path(__file__).parents[2]

recommender, model, source = scoring.recommender, scoring.model, scoring.source


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


STEPS = ("_write_aside", "_rename", "sync")
PLACED = ("_JOB.json", "part-00000", "its record", "part-00001", "its record", "_MANIFEST.json", "_SUCCESS")


@pytest.fixture(scope="module")
def unbroken(recommender: Recommender, causal_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happened to: 6 rows in two parts."""
    root = tmp_path_factory.mktemp("unbroken")
    source = write_rows(root / "rows.jsonl", some_rows(6))
    assert score(causal_bundle_path, source, root / "out", "--shard-rows", "3") == 0
    return root / "out"


@pytest.mark.parametrize("place", range(len(PLACED)), ids=PLACED)
@pytest.mark.parametrize("step", [*STEPS, "torn write"])
def test_killed_before_any_step_and_started_again_the_bytes_are_the_same(
    model, causal_bundle_path, unbroken, tmp_path, monkeypatch, step, place
):
    source = write_rows(tmp_path / "rows.jsonl", some_rows(6))
    out = tmp_path / "out"
    name = "_write_aside" if step == "torn write" else step
    real, calls = getattr(score_commit, name), []

    def killed(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == place + 1:
            if step == "torn write":
                arguments[0].write_bytes(arguments[1][: len(arguments[1]) // 2])
            raise Killed
        real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(score_commit, name, killed)
        score(causal_bundle_path, source, out, "--shard-rows", "3")
    assert not (out / "_SUCCESS").exists() or (step, place) == ("sync", 6)
    assert score(causal_bundle_path, source, out, "--shard-rows", "3") == 0
    assert content_of(out) == content_of(unbroken)


def test_killed_while_a_part_of_a_finished_output_is_redone_it_is_not_finished(
    model, causal_bundle_path, source, tmp_path
):
    def killed(requests: Sequence[Request]) -> None:
        raise Killed

    score(causal_bundle_path, source, tmp_path / "out")
    cut(tmp_path / "out" / "part-00000.parquet")
    model.instead = killed
    with pytest.raises(Killed):
        score(causal_bundle_path, source, tmp_path / "out")
    assert not {"_SUCCESS", "_MANIFEST.json"} & content_of(tmp_path / "out").keys()


def test_a_record_whose_numbers_were_changed_is_not_believed(model, causal_bundle_path, source, tmp_path):
    score(causal_bundle_path, source, tmp_path / "out")
    record = tmp_path / "out" / "_commits" / "part-00000.json"
    before = content_of(tmp_path / "out")
    record.write_text(record.read_text().replace('"bad_rows": 0', '"bad_rows": 1'))
    assert score(causal_bundle_path, source, tmp_path / "out") == 0
    assert content_of(tmp_path / "out") == before


def test_what_is_there_is_not_scored_again(model, causal_bundle_path, source, tmp_path, capsys):
    out, flags = tmp_path / "out", ["--shard-rows", "5"]

    def at_the_fourth(requests: Sequence[Request]) -> None:
        if len(model.asked) == 4:
            raise Killed

    model.instead = at_the_fourth
    with pytest.raises(Killed):
        score(causal_bundle_path, source, out, *flags)
    model.instead = lambda requests: None
    model.asked.clear()
    assert score(causal_bundle_path, source, out, *flags) == 0
    assert [len(requests) for requests in model.asked] == [5, 5]
    assert "going on: 15 rows are there already, in 3 parts" in capsys.readouterr().err


def test_a_finished_output_says_so_and_asks_no_model(model, causal_bundle_path, source, tmp_path, capsys):
    score(causal_bundle_path, source, tmp_path / "out")
    before = content_of(tmp_path / "out")
    model.asked.clear()
    assert score(causal_bundle_path, source, tmp_path / "out", "--overwrite") == 0
    assert "is finished: 25 rows in 1 parts" in capsys.readouterr().err
    assert not model.asked
    assert content_of(tmp_path / "out") == before


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
@pytest.mark.parametrize(
    ("name", "redone"), [("part-00001.parquet", 1), ("_commits/part-00001.json", 1), ("_MANIFEST.json", 0)]
)
def test_what_was_damaged_is_redone_and_only_that(model, causal_bundle_path, source, tmp_path, harm, name, redone):
    out, flags = tmp_path / "out", ["--shard-rows", "10"]
    score(causal_bundle_path, source, out, *flags)
    before = content_of(out)
    harm(out / name)
    model.asked.clear()
    assert score(causal_bundle_path, source, out, *flags) == 0
    assert len(model.asked) == redone
    assert content_of(out) == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--k", "3"], "k was 10, is 3"),
        (["--num-beams", "12"], "num_beams was None, is 12"),
        (["--no-exclude-history"], "exclude_history was None, is False"),
        (["--prove-exact"], "prove_exact was False, is True"),
        (["--batch-size", "4"], "batch_size was 32, is 4"),
        (["--shard-rows", "9"], "shard_rows was 10, is 9"),
        (["--format", "jsonl"], "output_format was parquet, is jsonl"),
    ],
)
def test_other_settings_are_refused_unless_overwritten(
    model, causal_bundle_path, source, tmp_path, capsys, flags, named
):
    out, usual = tmp_path / "out", ["--shard-rows", "10"]
    score(causal_bundle_path, source, out, *usual)
    (out / "notes.txt").write_text("mine")
    before = content_of(out)
    assert score(causal_bundle_path, source, out, *usual, *flags) == 65
    assert named in capsys.readouterr().err
    assert content_of(out) == before
    assert score(causal_bundle_path, source, out, *usual, *flags, "--overwrite") == 0
    assert score(causal_bundle_path, source, tmp_path / "fresh", *usual, *flags) == 0
    assert content_of(out) == content_of(tmp_path / "fresh") | {"notes.txt": b"mine"}


def test_another_input_bundle_or_number_of_threads_is_refused(
    model, recommender, causal_bundle_path, source, tmp_path, capsys
):
    out = tmp_path / "out"
    score(causal_bundle_path, source, out)
    other = tiny_bundle(tmp_path, TinyShape("causal", seed=1))
    assert score(other, source, out) == 65
    assert f"bundle was tiny {recommender.bundle.manifest.version}, is tiny " in capsys.readouterr().err
    assert score(causal_bundle_path, source, out, "--threads", "2") == 65
    torch.set_num_threads(1)
    assert "threads was 1, is 2" in capsys.readouterr().err
    source.write_text(source.read_text().replace("i1", "i2"))
    assert score(causal_bundle_path, source, out) == 65
    assert "input_sha256 was " in capsys.readouterr().err


JOB_KEYS = (
    "batch_size", "bundle", "device", "dtype", "engine", "exclude_history", "genrec_version", "input_sha256", "k",
    "num_beams", "output_format", "processor", "prove_exact", "pyarrow_version", "shard_rows", "threads",
    "torch_version", "transformers_version",
)  # fmt: skip


@pytest.mark.parametrize("name", JOB_KEYS)
def test_an_output_that_was_computed_with_anything_else_is_refused(model, causal_bundle_path, source, tmp_path, name):
    """Of what a test cannot change, such as the processor, the record of the old run is changed instead."""
    out = tmp_path / "out"
    score(causal_bundle_path, source, out)
    job = json.loads((out / "_JOB.json").read_text())
    assert tuple(job) == JOB_KEYS
    (out / "_JOB.json").write_bytes(to_json(job | {name: "other"}))
    before = content_of(out)
    with pytest.raises(InputError, match=f"is the output of another job: {name} was other, is "), held(out):
        ScoreOutput.open(out, job)
    assert score(causal_bundle_path, source, out) == 65
    assert content_of(out) == before
    assert score(causal_bundle_path, source, out, "--overwrite") == 0
    assert json.loads((out / "_JOB.json").read_text()) == job


def test_killed_while_it_overwrites_the_old_job_is_still_known(
    model, causal_bundle_path, source, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    score(causal_bundle_path, source, out)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(score_commit, "_write_aside", lambda *_: (_ for _ in ()).throw(Killed()))
        score(causal_bundle_path, source, out, "--k", "3", "--overwrite")
    assert sorted(content_of(out)) == [".lock", ".workers", "_JOB.json"]
    assert score(causal_bundle_path, source, out, "--k", "3", "--overwrite") == 0


def test_a_full_disk_is_a_sentence_and_the_job_goes_on_when_there_is_room(
    model, causal_bundle_path, unbroken, tmp_path, monkeypatch, capsys
):
    source = write_rows(tmp_path / "rows.jsonl", some_rows(6))
    real = score_commit._write_aside

    def full(file: Path, content: bytes) -> None:
        if file.name.startswith("part-00001.parquet"):
            file.write_bytes(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(score_commit, "_write_aside", full)
        assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "3") == 65
    assert f"cannot write in {tmp_path / 'out'}: No space left on device" in capsys.readouterr().err
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "3") == 0
    assert content_of(tmp_path / "out") == content_of(unbroken)


def test_an_input_that_changes_under_the_job_is_never_declared_done(
    model, causal_bundle_path, source, tmp_path, capsys
):
    def append(requests: Sequence[Request]) -> None:
        if len(model.asked) == 1:
            with source.open("a") as stream:
                stream.write('{"user_id": "late", "history": ["i1"]}\n')

    model.instead = append
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "5") == 65
    assert "was changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_SUCCESS").exists()


# --- real processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(causal_bundle_path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A real run over 600 rows, some parts of which are there and most are not."""
    source, out = write_rows(tmp_path / "rows.jsonl", some_rows(600)), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "genrec", "score", "--bundle", causal_bundle_path, "--input", source, "--output", out,
         "--shard-rows", "5"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (out / "part-00003.parquet").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.system
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_killed_half_way_and_started_again_it_is_as_if_never_killed(
    model, causal_bundle_path, begun, tmp_path, sign, code
):
    begun.send_signal(sign)
    _, said = begun.communicate(timeout=10)
    assert begun.returncode == code, said
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    if sign == signal.SIGTERM:
        assert said == "genrec score: stopped by SIGTERM; start it again to go on, finished parts are kept.\n"
    flags = ["--shard-rows", "5"]
    assert score(causal_bundle_path, tmp_path / "rows.jsonl", tmp_path / "out", *flags) == 0
    assert 0 < len(model.asked) < 120
    assert score(causal_bundle_path, tmp_path / "rows.jsonl", tmp_path / "unbroken", *flags) == 0
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")
    assert [row["user_id"] for row in rows_of(tmp_path / "out")] == [f"u{number}" for number in range(600)]
