"""The shards of an input, and that it stays as it was."""

import hashlib
import os

import pytest

from genrec.errors import DataError
from service import score_plan
from service.score_formats import open_rows
from service.score_plan import Plan, ShardSpan
from tests.service.scoring import some_rows, write_rows


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_shards_are_fixed_ranges_that_can_be_read_by_themselves(tmp_path, suffix):
    rows = some_rows(10)
    path = write_rows(tmp_path / f"rows.{suffix}", rows)
    plan = Plan.of(path, 4)
    assert [(span.number, span.first_row, span.num_rows) for span in plan.spans] == [(0, 0, 4), (1, 4, 4), (2, 8, 2)]
    assert plan.num_rows == 10
    assert plan.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for span in reversed(plan.spans):
        with open_rows(path) as file:
            found = [raw() for raw in file.read(span.start, span.num_rows)]
        assert found == rows[span.first_row : span.first_row + span.num_rows]


def test_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('\n\n{"a": 1}\n\n{"a": 2}\n{"a": 3}\n\n\n')
    plan = Plan.of(path, 2)
    assert [span.num_rows for span in plan.spans] == [2, 1]
    with open_rows(path) as file:
        assert [raw() for raw in file.read(plan.spans[1].start, 1)] == [{"a": 3}]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_rows_has_no_shards(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert Plan.of(path, 10).spans == ()


def test_a_file_that_breaks_off_is_refused_before_any_row_is_scored(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('user_id,history\na,[]\nb,"[\n')
    with pytest.raises(DataError, match=r"rows\.csv cannot be read: unexpected end of data"):
        Plan.of(path, 1)


@pytest.mark.parametrize("change", ["longer", "same length", "gone"])
def test_a_source_that_is_not_as_it_was_is_noticed(tmp_path, change):
    path = write_rows(tmp_path / "rows.jsonl", some_rows(3))
    source = Plan.of(path, 1).source
    source.check_unchanged()
    match change:
        case "longer":
            path.write_text(path.read_text() + "\n")
            os.utime(path, ns=(source.modified_ns, source.modified_ns))
        case "same length":
            os.utime(path, ns=(0, source.modified_ns + 1))
        case "gone":
            path.unlink()
    with pytest.raises(DataError, match=r"was changed while it was read|cannot be read any more"):
        source.check_unchanged()


def test_a_file_that_changes_while_it_is_planned_is_refused(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", some_rows(3))

    def hashed_while_it_grows(file):
        file.write_text(file.read_text() + "\n")
        return ""

    monkeypatch.setattr(score_plan, "sha256_of", hashed_while_it_grows)
    with pytest.raises(DataError, match="was changed while it was read"):
        Plan.of(path, 1)


def test_a_shard_in_a_sentence_counts_as_people_do():
    assert str(ShardSpan(5, 5000, 1000, 0)) == "rows 5,001 to 6,000"
