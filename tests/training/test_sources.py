from pathlib import Path

import polars as pl
import pytest

from genrec.errors import DataError
from tests.training.bench import write_csv
from training.sources import FILE, ROW, find_files, reading, scan


def table(path: str | Path) -> list[dict[str, object]]:
    return scan(str(path)).frame.drop(ROW, FILE).collect().to_dicts()


def test_every_format_gives_the_same_table(tmp_path: Path) -> None:
    expected = [{"u": "007", "i": "x,y"}, {"u": "8", "i": "z"}]
    write_csv(tmp_path / "a.csv", "u,i", '007,"x,y"', "8,z")
    write_csv(tmp_path / "a.tsv", "u\ti", "007\tx,y", "8\tz")
    write_csv(tmp_path / "a.jsonl", '{"u": "007", "i": "x,y"}', '{"u": "8", "i": "z"}')
    pl.DataFrame(expected).write_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        assert table(tmp_path / name) == expected


def test_csv_columns_stay_text_and_typed_files_keep_their_types(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", "u,n", "007,1.0")
    write_csv(tmp_path / "a.jsonl", '{"u": "007", "n": 1.5}')
    assert table(tmp_path / "a.csv") == [{"u": "007", "n": "1.0"}]
    assert scan(str(tmp_path / "a.csv")).is_text
    assert table(tmp_path / "a.jsonl") == [{"u": "007", "n": 1.5}]


def test_a_separator_of_ones_own(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "u;i", "1;2,5")
    assert scan(path, ";").frame.select("i").collect().item() == "2,5"


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffu,i\n1,2\n", encoding="utf-8")
    assert scan(str(tmp_path / "a.csv")).columns == ("u", "i")


def test_a_glob_and_a_directory_read_all_their_files_in_order(tmp_path: Path) -> None:
    for name, value in (("b", 2), ("a", 1), ("c", 3)):
        write_csv(tmp_path / "in" / f"{name}.csv", "u", str(value))
    write_csv(tmp_path / "in" / "_SUCCESS", "")
    write_csv(tmp_path / "in" / ".hidden" / "x.csv", "u", "9")
    assert [row["u"] for row in table(tmp_path / "in")] == ["1", "2", "3"]
    assert [row["u"] for row in table(tmp_path / "in" / "[ab].csv")] == ["1", "2"]


def test_relative_globs_start_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "in" / "a.csv", "u", "1")
    monkeypatch.chdir(tmp_path)
    assert find_files("in/*.csv") == (Path("in/a.csv"),)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_partition_folders_become_text_columns(tmp_path: Path, kind: str) -> None:
    for day in ("01", "02"):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        rows = pl.DataFrame({"u": ["a" + day]})
        if kind == "csv":
            rows.write_csv(folder / "x.csv")
        elif kind == "jsonl":
            rows.write_ndjson(folder / "x.jsonl")
        else:
            rows.write_parquet(folder / "x.parquet")
    assert table(tmp_path / "in") == [{"u": "a01", "day": "01"}, {"u": "a02", "day": "02"}]


def test_a_json_key_may_come_late_or_be_a_number_here_and_text_there(tmp_path: Path) -> None:
    write_csv(tmp_path / "in" / "a.jsonl", *(['{"u": 1}'] * 200), '{"u": 2, "late": true}')
    write_csv(tmp_path / "in" / "b.jsonl", '{"u": "03"}')
    rows = table(tmp_path / "in")
    assert rows[200] == {"u": "2", "late": True}
    assert rows[201] == {"u": "03", "late": None}


def test_a_place_is_a_file_and_a_row_of_it(tmp_path: Path) -> None:
    write_csv(tmp_path / "in" / "a.csv", "u", "1", "2", "3")
    write_csv(tmp_path / "in" / "b.csv", "u", "4", "5")
    source = scan(str(tmp_path / "in"))
    assert source.place(2).endswith("a.csv, row 3")
    assert source.place(4).endswith("b.csv, row 2")


def test_an_absent_column_names_the_nearest_and_all(tmp_path: Path) -> None:
    source = scan(write_csv(tmp_path / "a.csv", "userid,item_id", "1,2"))
    with pytest.raises(DataError, match=r"no column 'user_id' .*did you mean 'userid'\?.*userid, item_id"):
        source.require({"user": "user_id"}, "prepare.interactions")


def test_what_is_not_there_or_not_a_table_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path / "*.csv"):
        with pytest.raises(DataError, match="no data there; relative paths are read from"):
            scan(str(path))
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"one format .*found: \.xlsx"):
        scan(str(tmp_path / "a.xlsx"))
    write_csv(tmp_path / "in" / "a.csv", "u", "1")
    write_csv(tmp_path / "in" / "b.jsonl", '{"u": 1}')
    with pytest.raises(DataError, match="csv, jsonl"):
        scan(str(tmp_path / "in"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"u\n1,2\n"),
        ("a.csv", b"u,v\n\xff,2\n"),
        ("a.jsonl", b'{"u": 1\n'),
        ("a.parquet", b"x"),
    ],
)
def test_a_broken_file_is_a_sentence_with_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} cannot be read"), reading(str(tmp_path / name)):
        scan(str(tmp_path / name)).frame.collect()


def test_files_with_other_columns_in_another_order_are_not_read_by_position(tmp_path: Path) -> None:
    write_csv(tmp_path / "in" / "a.csv", "u,i", "1,2")
    write_csv(tmp_path / "in" / "b.csv", "i,u", "3,4")
    with pytest.raises(DataError, match="schema"):
        table(tmp_path / "in")
