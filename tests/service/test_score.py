"""`genrec score` as a user meets it: what it reads, writes, refuses and says."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from genrec.requests import Request
from service import score_progress
from service.score_output import held
from service.score_part import SCHEMA
from tests.service import scoring
from tests.service.fakes import serving
from tests.service.scoring import content_of, item_ids, rows_of, score, some_rows, write_rows

ROOT = Path(__file__).parents[2]

recommender, model, source = scoring.recommender, scoring.model, scoring.source


def test_parts_hold_the_rows_in_order_in_the_promised_schema(model, causal_bundle_path, source, tmp_path):
    assert score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "10", "--k", "4") == 0
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        ".lock", ".workers", "_JOB.json", "_MANIFEST.json", "_SUCCESS", "_commits",
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
        {
            "user_id": "u1", "history": ["i1", "i2"], "k": 3, "exclude": ["i5"], "exclude_history": False,
            "num_beams": 9, "filter": {"include_ids": ["i1", "i5", "i7", "i9"]},
        },
        {"user_id": "u2", "history": ["i1", "gone"], "k": None, "exclude": None, "exclude_history": None},
        {"user_id": "u3", "history": ["i3"], "k": 999},
        {"user_id": "u4", "history": [], "k": 2},
        {"user_id": "u5", "history": ["i3"], "filter": {"where": {"year": {"gte": 1935}}, "include_ids": None}},
        {"user_id": "u6", "history": ["i3"], "filter": {"where": {"year": {"gte": "1935"}}}},
    ]  # fmt: skip
    parts = []
    for suffix in ("jsonl", "csv", "parquet"):
        source = write_rows(tmp_path / f"rows.{suffix}", rows)
        assert score(causal_bundle_path, source, tmp_path / suffix) == 3
        parts.append((tmp_path / suffix / "part-00000.parquet").read_bytes())
    assert parts[0] == parts[1] == parts[2]
    found = rows_of(tmp_path / "csv")
    assert [row["unknown_items"] for row in found] == [[], ["gone"], None, [], [], None]
    assert [len(row["items"] or ()) for row in found[:5]] == [3, 10, 0, 2, 5]
    assert found[5]["error"].startswith("/filter/where/year/gte gte takes an integer")


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
        {"history": ["i9"], "k": 4, "num_beams": 4, "prove_exact": True},
        {"history": []},
        {"history": [{"item_id": "i5", "event": "rating"}, "i6"]},
        {"history": ["i4", "i7"], "filter": {"where": {"not": {"year": {"lte": 1925}}}}},
        {"history": ["i4", "i7"], "filter": {"include_ids": ["i1", "i2", "i4"], "where": {"year": {"gte": 1900}}}},
        {"history": [], "filter": {"include_ids": []}},
    ]
    rows = [{"user_id": str(number), **fields} for number, fields in enumerate(asked)]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert score(causal_bundle_path, source, tmp_path / "out", "--batch-size", "4") == 0
    async with serving(load=lambda *_, **__: recommender) as running:
        for fields, row in zip(asked, rows_of(tmp_path / "out"), strict=True):
            online = (await running.client.post("/recommend", json=fields)).json()
            assert item_ids(row) == item_ids(online)
            assert (row["unknown_items"], row["exact"]) == (online["unknown_items"], online["exact"])
            for name in ("score", "probability"):
                assert [item[name] for item in row["items"]] == pytest.approx(
                    [item[name] for item in online["items"]], abs=1e-4
                )


@pytest.mark.anyio
async def test_500_users_get_the_same_items_alone_in_8_in_64_and_online(
    model, recommender, causal_bundle_path, tmp_path
):
    source = write_rows(tmp_path / "rows.jsonl", some_rows(500))
    async with serving(load=lambda *_, **__: recommender) as running:
        expected: list[dict[str, Any]] = []
        for start in range(0, 500, 50):
            asked = [{"history": row["history"]} for row in some_rows(500)[start : start + 50]]
            body = {"requests": asked}
            expected += (await running.client.post("/v1/recommend/batch", json=body)).json()["results"]
    for size in ("1", "8", "64"):
        model.asked.clear()
        score(causal_bundle_path, source, tmp_path / size, "--batch-size", size)
        assert max(map(len, model.asked)) == int(size)
        rows = rows_of(tmp_path / size)
        assert [item_ids(row) for row in rows] == [item_ids(row) for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert [i["score"] for i in row["items"]] == pytest.approx([i["score"] for i in other["items"]], abs=1e-4)


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


def test_every_answer_of_a_file_can_be_proven_and_each_row_says_whether_it_is(model, causal_bundle_path, tmp_path):
    rows = [{"user_id": f"u{number}", "history": [f"i{number}"], "k": 3, "num_beams": 3} for number in range(10)]
    rows.append({"user_id": "cold", "history": [], "k": 3})
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert score(causal_bundle_path, source, tmp_path / "plain") == 0
    assert score(causal_bundle_path, source, tmp_path / "proven", "--prove-exact") == 0
    assert False in [row["exact"] for row in rows_of(tmp_path / "plain")]
    assert [row["exact"] for row in rows_of(tmp_path / "proven")] == [True] * 10 + [None]
    source = write_rows(tmp_path / "own.jsonl", [row | {"prove_exact": False} for row in rows[:10]])
    assert score(causal_bundle_path, source, tmp_path / "own", "--prove-exact") == 0
    assert False in [row["exact"] for row in rows_of(tmp_path / "own")]


# --- refused before work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_unknown_column_is_refused_before_work_with_the_nearest_name(model, suffix, tmp_path, capsys):
    source = write_rows(tmp_path / f"rows.{suffix}", [{"user_id": "a", "histroy": ["i1"]}])
    assert score(Path("no/such/bundle"), source, tmp_path / "out") == 65
    assert "has a column 'histroy', which is not read; did you mean 'history'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_with_another_separator_is_refused_with_the_reason(model, tmp_path, capsys):
    source = tmp_path / "rows.csv"
    source.write_text("user_id;history\na;i1\n")
    assert score(Path("no/such/bundle"), source, tmp_path / "out") == 65
    assert "'user_id;history', which is not read; a CSV file has commas" in capsys.readouterr().err


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


# --- the engine ------------------------------------------------------------------------------------------------------


def test_a_row_that_breaks_the_engine_fails_alone(model, causal_bundle_path, source, tmp_path):
    def break_on_two(requests: Sequence[Request]) -> None:
        if any(len(request.history) == 2 for request in requests):
            raise RuntimeError("CUDA error")

    score(causal_bundle_path, source, tmp_path / "whole", "--batch-size", "1")
    model.instead = break_on_two
    assert score(causal_bundle_path, source, tmp_path / "out") == 3
    for number, (row, whole) in enumerate(zip(rows_of(tmp_path / "out"), rows_of(tmp_path / "whole"), strict=True)):
        if number % 6 == 1:
            assert row["error"] == "inference failed with RuntimeError."
        else:
            assert (row["error"], item_ids(row)) == (None, item_ids(whole))


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
    monkeypatch.setattr(score_progress, "PROGRESS_S", 0.0)
    score(causal_bundle_path, source, tmp_path / "out", "--shard-rows", "10", "--batch-size", "5")
    out, err = capsys.readouterr()
    lines = re.findall(r"genrec score: (\d+) of 25 rows, [\d.]+ rows/s, \d:\d\d:\d\d left", err)
    assert [int(done) for done in lines] == [5, 10, 10, 15, 20, 20, 25, 25]
    assert out == ""


# --- the process ---------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_batch_scoring_imports_no_http():
    probe = "import sys, service.score; print(sorted({'fastapi', 'starlette', 'uvicorn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
