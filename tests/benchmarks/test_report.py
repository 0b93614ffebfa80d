import json

from benchmarks.report import machine, publish, table


def test_a_table_is_aligned_and_rounds_what_people_read():
    rows = [{"": "ready_s", "10": 0.012345, "2000000": 12345.678}, {"": "gpu", "10": None}]
    assert table(rows).splitlines() == [
        "             10  2000000",
        "ready_s  0.0123   12,346",
        "gpu           -        -",
    ]


def test_the_document_has_every_digit_and_says_where_it_was_measured(tmp_path, capsys):
    publish("size", [{"items": 10, "seconds": 0.0123456789}], tmp_path / "new", note="quiet")
    document = json.loads((tmp_path / "new" / "size.json").read_text())
    assert document["rows"] == [{"items": 10, "seconds": 0.0123456789}]
    assert (document["benchmark"], document["note"]) == ("size", "quiet")
    assert document["machine"].keys() == machine().keys() >= {"date", "processor", "torch", "numpy"}
    assert "0.0123" in capsys.readouterr().out
