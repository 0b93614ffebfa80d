"""Histories of all users, from interactions in any order."""

import csv
import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.errors import DataError
from service import score_histories
from service.score_histories import write_histories
from tests.service import scoring
from tests.service.scoring import command, content_of, rows_of

recommender, model = scoring.recommender, scoring.model

ROWS = [
    ("b", "i3", 30),
    ("a", "i1", 20),
    ("b", "i1", 10),
    ("a", "i2", 20),
    ("007", "i9", 5),
    ("b", "i2", 20),
    ("a", "i4", 1),
]
EXPECTED = [
    {"user_id": "b", "history": ["i1", "i2", "i3"]},
    {"user_id": "a", "history": ["i4", "i1", "i2"]},
    {"user_id": "007", "history": ["i9"]},
]


def write(
    path: Path, rows: list[tuple[Any, ...]], names: tuple[str, ...] = ("user_id", "item_id", "timestamp")
) -> Path:
    if path.suffix == ".parquet":
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([names, *rows])
    return path


def histories(interactions: Path) -> list[dict[str, Any]]:
    target = interactions.with_name("_input.parquet")
    write_histories(interactions, target)
    return pq.read_table(target).to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_each_user_has_a_row_with_what_they_took_oldest_first_ties_as_in_the_file(tmp_path, suffix):
    assert histories(write(tmp_path / f"data.{suffix}", ROWS)) == EXPECTED


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_ids_that_come_in_many_batches_are_the_same_ids(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(score_histories, "_USERS_AT_ONCE", 100)
    rows = [(f"u{number % 700}", f"i{number % 91}", -number) for number in range(200_000)]
    found = histories(write(tmp_path / f"data.{suffix}", rows))
    assert [row["user_id"] for row in found] == [f"u{number}" for number in range(700)]
    for number in (0, 99, 100, 101, 699):
        expected = [f"i{place % 91}" for place in range(number, 200_000, 700)][::-1]
        assert found[number]["history"] == expected


def test_the_same_interactions_are_the_same_bytes(tmp_path):
    path = write(tmp_path / "data.parquet", ROWS)
    for target in ("one", "two"):
        write_histories(path, tmp_path / target)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "times",
    [
        [3, 1, 2],
        [3.5, -1.0, 2.25],
        [datetime.date(2024, 1, day) for day in (3, 1, 2)],
        [datetime.datetime(2024, 1, 1, hour, 0, 1) for hour in (3, 1, 2)],
        [datetime.datetime(2024, 1, 1, hour, tzinfo=datetime.UTC) for hour in (3, 1, 2)],
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_times_of_any_kind_are_ordered(tmp_path, suffix, times):
    rows = [("u", f"i{place}", time) for place, time in enumerate(times)]
    assert histories(write(tmp_path / f"data.{suffix}", rows)) == [{"user_id": "u", "history": ["i1", "i2", "i0"]}]


def test_other_columns_are_not_read_and_numbers_are_ids_in_decimal(tmp_path):
    path = write(tmp_path / "data.parquet", [(4.0, 2**60, 7, 1)], ("rating", "user_id", "item_id", "timestamp"))
    assert histories(path) == [{"user_id": str(2**60), "history": ["7"]}]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a", "", 1)], "has rows without 'item_id'"),
        ([("a", None, 1), ("a", "b", 1)], "has rows without 'item_id'"),
        ([("a", "b", None), ("a", "b", 1)], "has rows without 'timestamp'"),
        ([("a", "b", "noon")], "column 'timestamp' holds string; write numbers, or times as in 2024"),
    ],
)
def test_a_row_that_lacks_something_is_a_sentence(tmp_path, suffix, rows, said):
    with pytest.raises(DataError, match=said):
        histories(write(tmp_path / f"data.{suffix}", rows))


def test_a_file_that_is_none_of_ours_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="has no column 'timestamp'; its columns: user_id, item_id, time"):
        histories(write(tmp_path / "data.csv", ROWS, ("user_id", "item_id", "time")))
    with pytest.raises(DataError, match=r"must end in \.parquet or \.csv"):
        histories(tmp_path / "data.tsv")
    with pytest.raises(DataError, match=r"absent\.csv cannot be read: "):
        histories(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="column 'user_id' holds double; an id is text or a whole number"):
        histories(write(tmp_path / "data.parquet", [(1.5, "i1", 1)]))
    (tmp_path / "empty.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(DataError, match=r"empty\.csv has no interactions"):
        histories(tmp_path / "empty.csv")


# --- the command -----------------------------------------------------------------------------------------------------


def test_all_users_are_scored_as_if_their_histories_had_been_a_file(model, causal_bundle_path, tmp_path, capsys):
    source, out = write(tmp_path / "data.csv", ROWS), tmp_path / "out"
    arguments = ["--bundle", str(causal_bundle_path), "--all-users", "--from", str(source), "--workers", "1"]
    assert command(*arguments, "--output", str(out)) == 0
    assert [row["user_id"] for row in rows_of(out)] == ["b", "a", "007"]
    assert [request.history for request in model.asked[0]] == [["i9"], ["i1", "i2", "i3"], ["i4", "i1", "i2"]]
    before = content_of(out)
    assert pq.read_table(out / "_input.parquet").to_pylist() == EXPECTED
    assert scoring.score(causal_bundle_path, out / "_input.parquet", tmp_path / "again") == 0
    assert content_of(tmp_path / "again") == {name: part for name, part in before.items() if name != "_input.parquet"}
    (out / "part-00000.parquet").unlink()
    assert command(*arguments, "--output", str(out)) == 0
    assert content_of(out) == before
    source.write_text(source.read_text() + "b,i5,40\n")
    assert command(*arguments, "--output", str(out)) == 65
    assert "input_sha256 was " in capsys.readouterr().err
    assert content_of(out) == before


@pytest.mark.parametrize(
    "flags", [[], ["--all-users"], ["--from", "x.csv"], ["--input", "x.csv", "--all-users", "--from", "x.csv"]]
)
def test_what_to_score_is_said_in_one_way(flags, tmp_path, capsys):
    assert command("--bundle", "b", "--output", str(tmp_path / "out"), *flags) == 2
    assert "--all-users --from FILE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
