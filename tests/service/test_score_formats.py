"""Reading rows: what a broken one says, and what breaks a whole file."""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.errors import DataError, RequestError
from service import score_formats
from service.score_formats import RawRow, format_of, open_rows
from tests.service.scoring import some_rows, write_rows


def parsed(path: Path) -> list[Any]:
    """The fields of every row, or the sentence that it has none."""
    with open_rows(path) as rows:
        return fields_of(rows.read(rows.place, 10_000))


def fields_of(raws: Sequence[RawRow]) -> list[Any]:
    found: list[Any] = []
    for raw in raws:
        try:
            found.append(raw())
        except RequestError as error:
            found.append(f"{error.pointer} {error}".strip())
    return found


def columns_of(path: Path) -> list[str]:
    with open_rows(path) as rows:
        return list(rows.columns)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_fields_that_were_written(tmp_path, suffix):
    rows = some_rows(2500)
    path = write_rows(tmp_path / f"rows.{suffix}", rows)
    assert columns_of(path) == ["user_id", "history"]
    assert parsed(path) == rows


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_can_be_read_from_any_place_where_one_begins_in_any_order(tmp_path, suffix):
    rows = some_rows(2500)
    path = write_rows(tmp_path / f"rows.{suffix}", rows)
    if suffix == "parquet":
        pq.write_table(pq.read_table(path), path, row_group_size=1700)
    places = []
    with open_rows(path) as file:
        for start in range(0, 2500, 300):
            places.append((file.place, start))
            assert file.skip(300) == min(300, 2500 - start)
        assert file.skip(300) == 0
        for place, start in [*places, *reversed(places), places[3], places[3], places[5]]:
            assert fields_of(file.read(place, 300)) == rows[start : start + 300]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_of_a_csv_begin_where_they_begin_whatever_ends_a_line_and_with_quoted_line_ends(
    tmp_path, end, monkeypatch
):
    monkeypatch.setattr(score_formats, "_BLOCK_BYTES", 7)  # lines and their two ends fall apart
    path = tmp_path / "rows.csv"
    users = ["ä", f"b{end}b", "c,c", f"{end}{end}d", "e"]
    lines = [f'"{user}",[]{end}' for user in users]
    path.write_bytes(f"\ufeffuser_id,history{end}{end}{lines[0]}{end}{''.join(lines[1:])}".encode())
    places = []
    with open_rows(path) as file:
        for user in users:
            places.append((file.place, user))
            assert file.skip(1) == 1
        assert file.skip(1) == 0
    for place, user in places:
        with open_rows(path) as file:
            assert fields_of(file.read(place, 1)) == [{"user_id": user, "history": []}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[1]", "The line is not a JSON object."),
        (b"{", "The line is not JSON."),
        (b'{"k": ' + b"9" * 5000 + b"}", "The line is not JSON."),
        (b"[" * 100_000, "The line is not JSON."),
        (b'{"user_id": "\xff"}', "The line is not UTF-8."),
    ],
)
def test_a_line_that_is_no_object_is_its_own_rows_error(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"user_id": "a"}\n\n' + line + b'\n{"user_id": "b"}')
    assert parsed(path) == [{"user_id": "a"}, said, {"user_id": "b"}]


def test_a_line_too_long_to_hold_is_skipped_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(score_formats, "MAX_LINE_BYTES", 40)
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"user_id": "x" * 20}), json.dumps({"user_id": "y" * 200}), '{"user_id": "z"}']
    path.write_text("".join(f"{line}\n" for line in lines))
    assert parsed(path) == [{"user_id": "x" * 20}, "The line is longer than 40 bytes.", {"user_id": "z"}]


def test_cells_are_json_but_for_the_user_and_empty_ones_are_not_given(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        '\ufeffuser_id,history,k,exclude_history,prove_exact\r\n007,"[""50"", 181]",5,True,TRUE\r\n\r\n'
        '8,"[""a\nb""]",,FALSE,\r\n9,50 181,,,\r\n10,[]\r\n'
    )
    assert columns_of(path) == ["user_id", "history", "k", "exclude_history", "prove_exact"]
    assert parsed(path) == [
        {"user_id": "007", "history": ["50", 181], "k": 5, "exclude_history": True, "prove_exact": True},
        '/history The cell is not JSON; a list is written ["50", "181"].',
        '/history The cell is not JSON; a list is written ["50", "181"].',
        "The row has 2 cells, the header 5.",
    ]


def test_a_filter_is_an_object_in_jsonl_and_its_text_in_tables(tmp_path):
    asked = {"where": {"year": {"gte": 1990}}}
    path = tmp_path / "rows.csv"
    path.write_text('user_id,filter\na,"{""where"": {""year"": {""gte"": 1990}}}"\nb,\nc,year>1990\n')
    said = '/filter The cell is not JSON; a filter is written {"where": {"year": {"gte": 1990}}}.'
    assert parsed(path) == [{"user_id": "a", "filter": asked}, {"user_id": "b"}, said]
    table = pa.table({"user_id": ["a", "b", "c"], "filter": [json.dumps(asked), None, "year>1990"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert parsed(tmp_path / "rows.parquet") == [
        {"user_id": "a", "filter": asked}, {"user_id": "b", "filter": None}, said,
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps({"user_id": "a", "filter": asked}))
    assert parsed(tmp_path / "rows.jsonl") == [{"user_id": "a", "filter": asked}]


def test_bytes_that_are_not_utf_8_leave_the_other_rows_of_a_csv_alone(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'user_id,history\n\xff,[]\nb,"[""1""]"\n')
    assert parsed(path)[1] == {"user_id": "b", "history": ["1"]}


def test_a_quote_that_never_ends_is_a_sentence_with_the_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('user_id,history\na,[]\nb,"[\n')
    with pytest.raises(DataError, match=r"rows\.csv cannot be read: unexpected end of data"):
        parsed(path)


def test_a_broken_parquet_file_is_a_sentence_with_the_file(tmp_path):
    path = write_rows(tmp_path / "rows.parquet", some_rows(5))
    path.write_bytes(path.read_bytes()[:-20])
    for read in (columns_of, parsed):
        with pytest.raises(DataError, match=r"rows\.parquet cannot be read: "):
            read(path)


def test_a_parquet_column_that_brings_its_own_type_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"user_id": pa.array([b"0" * 16], pa.uuid()), "history": [["i1"]]}), path)
    with pytest.raises(DataError, match="column 'user_id' is of the extension type"):
        columns_of(path)


def test_a_file_of_no_known_kind_or_none_at_all_is_refused(tmp_path):
    (tmp_path / "rows.xlsx").write_text("")
    with pytest.raises(DataError, match=r"must end in one of \.jsonl, \.ndjson, \.csv, \.parquet"):
        format_of(tmp_path / "rows.xlsx")
    for absent in ("rows.jsonl", "."):
        with pytest.raises(DataError, match="is not a file"):
            format_of(tmp_path / absent)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_rows_that_are_passed_over_are_not_held_in_memory(tmp_path, suffix):
    rows = [{"user_id": "u", "history": ["i" * 1000] * 10}] * 2000  # 20 MB
    path = write_rows(tmp_path / f"rows.{suffix}", rows)
    tracemalloc.start()
    with open_rows(path) as file:
        assert file.skip(3000) == 2000
    assert tracemalloc.get_traced_memory()[1] < 6e6
    tracemalloc.stop()
