"""`genrec score` as a user meets it. What needs a process that is really killed is marked system."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from genrec.recommender import Answer, Recommender, Request
from service import score as command
from service import score_output
from service.score_output import held
from service.score_part import SCHEMA
from tests.fakes import TinyShape, tiny_bundle
from tests.service.fakes import serving
from tests.service.scoring import content_of, item_ids, rows_of, score, some_rows, write_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recommender(causal_bundle_path: Path) -> Recommender:
    return Recommender.load(causal_bundle_path)


class Model:
    """The recommender that every run of a test shares: what it was asked, and what it is to do instead."""

    def __init__(self, recommender: Recommender) -> None:
        self.asked: list[list[Request]] = []
        self.instead: Callable[[Sequence[Request]], None] = lambda requests: None
        self._recommend = recommender.recommend

    def recommend(self, _: Recommender, requests: Sequence[Request]) -> list[Answer]:
        self.asked.append(list(requests))
        self.instead(requests)
        return self._recommend(requests)


@pytest.fixture
def model(recommender: Recommender, causal_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The bundle is loaded once for the file, and only by its own path."""
    model, load = Model(recommender), Recommender.load
    monkeypatch.setattr(Recommender, "recommend", lambda self, requests: model.recommend(self, requests))
    monkeypatch.setattr(
        Recommender, "load", lambda path, **kw: recommender if path == causal_bundle_path else load(path, **kw)
    )
    return model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", some_rows(25))


def test_parts_hold_the_rows_in_order_in_the_promised_schema(model, causal_bundle_path, source, tmp_path):
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "10", "--k", "4") == 0
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        ".lock", "_JOB.json", "_MANIFEST.json", "_SUCCESS", "_commits",
        "part-00000.parquet", "part-00001.parquet", "part-00002.parquet",
    ]  # fmt: skip
    parts = [pq.read_table(out / f"part-{number:05d}.parquet") for number in range(3)]
    assert [part.num_rows for part in parts] == [10, 10, 5]
    assert all(part.schema.equals(SCHEMA) for part in parts)
    rows = rows_of(out)
    assert [row["user_id"] for row in rows] == [f"u{number}" for number in range(25)]
    assert all(len(row["items"]) == 4 and row["error"] is None and row["unknown_items"] == [] for row in rows)


def test_the_manifest_says_what_is_there_and_nothing_of_when_or_where(model, causal_bundle_path, source, tmp_path):
    out = tmp_path / "out"
    score(causal_bundle_path, source, out, "--shard-rows", "10")
    manifest = json.loads((out / "_MANIFEST.json").read_text())
    for part in manifest["parts"]:
        content = (out / part["file"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (manifest["rows"], manifest["bad_rows"]) == (25, 0)
    assert manifest["bytes"] == sum(part["bytes"] for part in manifest["parts"])
    assert manifest["job"] == json.loads((out / "_JOB.json").read_text())
    assert manifest["job"]["input_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (out / "_SUCCESS").read_bytes() == b""
    said = b"".join(content_of(out).values())
    assert os.uname().nodename.encode() not in said
    assert str(tmp_path).encode() not in said


def test_the_three_formats_of_input_give_the_same_bytes(model, causal_bundle_path, tmp_path):
    rows = [
        {"user_id": "u1", "history": ["i1", "i2"], "k": 3, "exclude": ["i5"], "exclude_history": False, "num_beams": 9},
        {"user_id": "u2", "history": ["i1", "gone"], "k": None, "exclude": None, "exclude_history": None},
        {"user_id": "u3", "history": ["i3"], "k": 999},
        {"user_id": "u4", "history": [], "k": 2},
    ]  # fmt: skip
    parts = []
    for suffix in ("jsonl", "csv", "parquet"):
        source = write_rows(tmp_path / f"rows.{suffix}", rows)
        assert score(causal_bundle_path, source, tmp_path / suffix) == 3
        parts.append((tmp_path / suffix / "part-00000.parquet").read_bytes())
    assert parts[0] == parts[1] == parts[2]
    assert [row["unknown_items"] for row in rows_of(tmp_path / "csv")] == [[], ["gone"], None, []]


def test_jsonl_parts_hold_the_same_rows_as_parquet_parts(model, causal_bundle_path, source, tmp_path):
    score(causal_bundle_path, source, tmp_path / "parquet", "--shard-rows", "10")
    score(causal_bundle_path, source, tmp_path / "jsonl", "--shard-rows", "10", "--format", "jsonl")
    assert [file.name for file in sorted((tmp_path / "jsonl").glob("part-*"))][-1] == "part-00002.jsonl"
    assert rows_of(tmp_path / "jsonl") == rows_of(tmp_path / "parquet")


@pytest.mark.anyio
async def test_rows_are_answered_as_the_service_answers_them(recommender, causal_bundle_path, tmp_path):
    asked = [
        {"history": ["i1", "i2", "i3"]},
        {"history": ["i1", "nope", "i1"], "k": 3},
        {"history": ["i4"], "exclude_history": False, "exclude": ["i7", "i8"]},
        {"history": ["i9"], "num_beams": 12},
        {"history": []},
        {"history": [{"item_id": "i5", "event": "rating"}, "i6"]},
    ]
    rows = [{"user_id": str(number), **fields} for number, fields in enumerate(asked)]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert score(causal_bundle_path, source, tmp_path / "out", "--batch-size", "4") == 0
    async with serving(load=lambda *_, **__: recommender) as running:
        for fields, row in zip(asked, rows_of(tmp_path / "out"), strict=True):
            online = (await running.client.post("/recommend", json=fields)).json()
            assert item_ids(row) == item_ids(online)
            assert row["unknown_items"] == online["unknown_items"]
            for name in ("score", "probability"):
                assert [item[name] for item in row["items"]] == pytest.approx(
                    [item[name] for item in online["items"]], abs=1e-4
                )


def test_the_size_of_batches_changes_no_item(model, causal_bundle_path, tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", some_rows(11))
    expected: list[dict[str, Any]] = []
    for size in ("1", "3", "32"):
        score(causal_bundle_path, source, tmp_path / size, "--batch-size", size)
        rows = rows_of(tmp_path / size)
        expected = expected or rows
        assert [item_ids(row) for row in rows] == [item_ids(row) for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert [i["score"] for i in row["items"]] == pytest.approx([i["score"] for i in other["items"]], abs=1e-4)
    assert max(map(len, model.asked)) == 11


def test_bad_rows_keep_their_place_and_the_job_goes_on(model, causal_bundle_path, tmp_path, capsys):
    rows = some_rows(5)
    rows[1]["k"] = 51
    del rows[3]["history"]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "2") == 3
    found = rows_of(tmp_path / "out")
    assert [row["error"] for row in found] == [
        None, "/k k must be from 1 to 50.", None, "/history Field required.", None,
    ]  # fmt: skip
    assert [row["items"] is None for row in found] == [False, True, False, True, False]
    assert json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())["bad_rows"] == 2
    assert "5 rows in 3 parts, 2 of them bad: see the column error" in capsys.readouterr().err


def test_with_errors_stop_a_bad_row_is_named_and_its_part_not_written(model, causal_bundle_path, tmp_path, capsys):
    rows = some_rows(5)
    rows[3]["k"] = 51
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "2", "--errors", "stop") == 65
    assert f"{source}, row 4: /k k must be from 1 to 50." in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").glob("part-*")] == ["part-00000.parquet"]


def test_k_and_beams_of_the_command_stand_in_for_those_a_row_does_not_give(model, causal_bundle_path, tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", [{"user_id": "a", "history": ["i1"]}, {"user_id": "b", "history": ["i1"], "k": 2}])  # fmt: skip # noqa: E501
    flags = ["--k", "5", "--num-beams", "7", "--no-exclude-history"]
    assert score(causal_bundle_path, source, tmp_path / "out", *flags) == 0
    [requests] = model.asked
    assert [(request.k, request.num_beams, request.exclude_history) for request in requests] == [
        (5, 7, False), (2, 7, False),
    ]  # fmt: skip


# --- refused before work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_unknown_column_is_refused_before_work_with_the_nearest_name(model, suffix, tmp_path, capsys):
    source = write_rows(tmp_path / f"rows.{suffix}", [{"user_id": "a", "histroy": ["i1"]}])
    assert score(Path("no/such/bundle"), source, tmp_path / "out") == 65
    assert "There is no column 'histroy'; did you mean 'history'?" in capsys.readouterr().err


def test_k_beyond_the_bundle_is_refused_before_work(model, causal_bundle_path, source, tmp_path, capsys):
    assert score(causal_bundle_path, source, tmp_path / "out", "--k", "51") == 65
    assert "k must be from 1 to 50" in capsys.readouterr().err
    assert not model.asked


def test_a_directory_with_other_files_is_refused_and_left_alone(model, causal_bundle_path, source, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("three years")
    assert score(causal_bundle_path, source, tmp_path / "out", "--overwrite") == 65
    assert "holds 'thesis.txt' and is not the output of a scoring job" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "three years"


def test_a_second_driver_is_told_75(model, causal_bundle_path, source, tmp_path, capsys):
    with held(tmp_path / "out"):
        assert score(causal_bundle_path, source, tmp_path / "out") == 75
    assert "is being written by another run" in capsys.readouterr().err
    assert score(causal_bundle_path, source, tmp_path / "out") == 0


# --- started again ---------------------------------------------------------------------------------------------------


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
    real, calls = getattr(score_output, name), []

    def killed(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == place + 1:
            if step == "torn write":
                arguments[0].write_bytes(arguments[1][: len(arguments[1]) // 2])
            raise Killed
        real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(score_output, name, killed)
        score(causal_bundle_path, source, out, "--shard-rows", "3")
    assert not (out / "_SUCCESS").exists() or (step, place) == ("sync", 6)
    assert score(causal_bundle_path, source, out, "--shard-rows", "3") == 0
    assert content_of(out) == content_of(unbroken)


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
    model, recommender, causal_bundle_path, source, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    score(causal_bundle_path, source, out)
    other = tiny_bundle(tmp_path, TinyShape("causal", seed=1))
    assert score(other, source, out) == 65
    assert f"bundle was tiny {recommender.bundle.manifest.version}, is tiny " in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 7)
        assert score(causal_bundle_path, source, out) == 65
        assert "threads was 1, is 7" in capsys.readouterr().err
    source.write_text(source.read_text().replace("i1", "i2"))
    assert score(causal_bundle_path, source, out) == 65
    assert "input_sha256 was " in capsys.readouterr().err


def test_killed_while_it_overwrites_the_old_job_is_still_known(
    model, causal_bundle_path, source, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    score(causal_bundle_path, source, out)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(score_output, "_write_aside", lambda *_: (_ for _ in ()).throw(Killed()))
        score(causal_bundle_path, source, out, "--k", "3", "--overwrite")
    assert sorted(content_of(out)) == [".lock", "_JOB.json"]
    assert score(causal_bundle_path, source, out, "--k", "3", "--overwrite") == 0


def test_a_full_disk_is_a_sentence_and_the_job_goes_on_when_there_is_room(
    model, causal_bundle_path, unbroken, tmp_path, monkeypatch, capsys
):
    source = write_rows(tmp_path / "rows.jsonl", some_rows(6))
    real = score_output._write_aside

    def full(file: Path, content: bytes) -> None:
        if file.name == "part-00001.parquet":
            file.write_bytes(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(score_output, "_write_aside", full)
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


# --- the engine ------------------------------------------------------------------------------------------------------


def test_a_row_that_breaks_the_engine_fails_alone(model, causal_bundle_path, source, tmp_path):
    def break_on_two(requests: Sequence[Request]) -> None:
        if any(len(request.history) == 2 for request in requests):
            raise RuntimeError("CUDA error")

    score(causal_bundle_path, source, tmp_path / "whole", "--batch-size", "1")
    model.instead = break_on_two
    assert score(causal_bundle_path, source, tmp_path / "out") == 3
    for number, (row, whole) in enumerate(zip(rows_of(tmp_path / "out"), rows_of(tmp_path / "whole"), strict=True)):
        assert row == whole if number % 6 != 1 else row["error"] == "inference failed with RuntimeError."


def test_an_engine_that_is_gone_ends_the_job_with_70_and_blames_no_row(model, causal_bundle_path, source, tmp_path):
    def gone(requests: Sequence[Request]) -> None:
        if len(model.asked) > 2:
            raise RuntimeError("CUDA error: device-side assert triggered")

    model.instead = gone
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "5") == 70
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    model.instead = lambda requests: None
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "5") == 0
    assert all(row["error"] is None for row in rows_of(tmp_path / "out"))


def test_progress_is_a_line_with_rate_and_time_left(model, causal_bundle_path, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "PROGRESS_S", 0.0)
    score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "10", "--batch-size", "5")
    out, err = capsys.readouterr()
    lines = re.findall(r"genrec score: (\d+) of about (\d+) rows, [\d.]+ rows/s, \d:\d\d:\d\d left", err)
    assert [int(done) for done, _ in lines] == [5, 10, 15, 20, 25]
    assert [abs(int(total) - 25) <= 1 for _, total in lines] == [True] * 5
    assert out == ""


# --- processes -------------------------------------------------------------------------------------------------------


def test_batch_scoring_imports_no_http():
    probe = "import sys, service.score; print(sorted({'fastapi', 'starlette', 'uvicorn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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
