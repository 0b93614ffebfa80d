"""Parts: what is written is what is read."""

import io
import json

import pyarrow.parquet as pq
import pytest

from service.score_part import SCHEMA, ScoredRow, encode

ROWS = [
    ScoredRow("é\n1", [{"item_id": "i1", "score": -0.1 - 0.2, "probability": 1e-300}], True, ["gone"], None),
    ScoredRow("2", [{"item_id": "i1", "score": None, "probability": None}], None, [], None),
    ScoredRow("3", [], False, [], None),
    ScoredRow.failed(None, "/user_id user_id is missing."),
]


def test_both_formats_hold_every_value_exactly():
    expected = [row.fields for row in ROWS]
    assert [json.loads(line) for line in encode(ROWS, "jsonl").splitlines()] == expected
    table = pq.read_table(io.BytesIO(encode(ROWS, "parquet")))
    assert table.to_pylist() == expected
    assert table.schema.equals(SCHEMA)


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_the_same_rows_are_the_same_bytes(file_format):
    assert encode(ROWS, file_format) == encode(list(ROWS), file_format)


def test_a_part_without_a_single_answer_has_the_same_schema():
    assert pq.read_table(io.BytesIO(encode(ROWS[3:], "parquet"))).schema.equals(SCHEMA)
