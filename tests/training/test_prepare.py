import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.errors import DataError, TrainingError
from tests.training.bench import RememberingProgress, recipe, rows, run_stage, write_csv
from training import prepare
from training.prepare import STAGE, files_read
from training.split import TEST, TRAIN

INTERACTIONS = ("user_id,item_id,timestamp", *(f"u{u},0{i},{100 * u + i}" for u in range(3) for i in range(4)))
ITEMS = ("item_id,title,genres", *(f"0{i},Title {i},a|b" for i in range(5)))
METADATA = {"title": "string", "genres": {"type": "list", "separator": "|"}}


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    """A section on three users with four items each, and five items."""
    return {
        "interactions": {"path": write_csv(tmp_path / "in" / "interactions.csv", *INTERACTIONS)},
        "items": {"path": write_csv(tmp_path / "in" / "items.csv", *ITEMS), "metadata": METADATA},
    }


def prepared(section: dict[str, Any], work: Path, **other: Any) -> Path:
    return run_stage(STAGE, recipe(section, **other), work)


def refusal(section: dict[str, Any], work: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepared(section, work)
    return str(caught.value)


def test_the_files_have_the_agreed_columns_order_and_types(own: dict[str, Any], tmp_path: Path) -> None:
    output = prepared(own, tmp_path / "work")
    table = pq.read_table(output / "interactions.parquet")
    assert table.schema.names == ["user_id", "item_id", "timestamp", "position", "split"]
    assert table.schema.types == [pa.string(), pa.string(), pa.int64(), pa.int32(), pa.string()]
    assert table.to_pylist()[:4] == [
        {"user_id": "u0", "item_id": "00", "timestamp": 0, "position": 0, "split": "train"},
        {"user_id": "u0", "item_id": "01", "timestamp": 1000, "position": 1, "split": "train"},
        {"user_id": "u0", "item_id": "02", "timestamp": 2000, "position": 2, "split": "validation"},
        {"user_id": "u0", "item_id": "03", "timestamp": 3000, "position": 3, "split": "test"},
    ]
    items = pq.read_table(output / "items.parquet")
    assert items.schema.types == [pa.string(), pa.string(), pa.list_(pa.field("item", pa.string()))]
    assert items.to_pylist()[0] == {"item_id": "00", "title": "Title 0", "genres": ["a", "b"]}
    assert sorted(path.name for path in output.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "report.json",
        "report.md",
    ]


def test_two_runs_write_the_same_bytes_whatever_the_order_of_the_input(own: dict[str, Any], tmp_path: Path) -> None:
    first = prepared(own, tmp_path / "one")
    write_csv(Path(own["interactions"]["path"]), INTERACTIONS[0], *reversed(INTERACTIONS[1:]))
    second = prepared(own, tmp_path / "two")
    for name in ("interactions.parquet", "items.parquet", "report.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_items_without_interactions_stay_only_when_asked(own: dict[str, Any], tmp_path: Path) -> None:
    assert len(rows(prepared(own, tmp_path / "one") / "items.parquet")) == 4
    assert len(rows(prepared({**own, "keep_unseen_items": True}, tmp_path / "two") / "items.parquet")) == 5


def test_ratings_and_events_travel_along(tmp_path: Path) -> None:
    lines = [f'{{"u": 1, "i": {i}, "t": "2024-01-0{i}", "r": {i}, "e": "buy"}}' for i in range(1, 5)]
    lines.append('{"u": 1, "i": 9, "t": "2024-01-09", "r": 3, "e": null}')
    source = {"path": write_csv(tmp_path / "a.jsonl", *lines), "user": "u", "item": "i", "time": "t", "rating": "r"}
    output = prepared({"interactions": {**source, "event": "e"}, "minimum_rating": 2.0}, tmp_path / "work")
    table = rows(output / "interactions.parquet")
    assert [row["rating"] for row in table] == [2.0, 3.0, 4.0, 3.0]
    assert [row["event"] for row in table] == ["buy", "buy", "buy", None]
    assert rows(output / "items.parquet") == [{"item_id": item} for item in ("2", "3", "4", "9")]


def test_without_a_metadata_table_every_column_is_metadata(own: dict[str, Any], tmp_path: Path) -> None:
    del own["items"]["metadata"]
    output = prepared(own, tmp_path / "work")
    assert rows(output / "items.parquet")[0] == {"item_id": "00", "title": "Title 0", "genres": "a|b"}
    write_csv(Path(own["items"]["path"]), "item_id,popularity", *(f"0{i},3" for i in range(5)))
    assert "[prepare.items.metadata]" in refusal(own, tmp_path / "again")


def test_users_with_fewer_than_three_interactions_only_train_and_the_report_says_so(
    own: dict[str, Any], tmp_path: Path
) -> None:
    write_csv(Path(own["interactions"]["path"]), *INTERACTIONS, "u9,00,1", "u9,01,2")
    output = prepared(own, tmp_path / "work")
    assert {row["split"] for row in rows(output / "interactions.parquet") if row["user_id"] == "u9"} == {"train"}
    report = json.loads((output / "report.json").read_text())
    assert report["users_without_test"] == 1
    assert report["split"] == {"train": 8, "validation": 3, "test": 3}
    assert "fewer than three" in (output / "report.md").read_text()


def test_the_report_counts_each_step_and_names_the_data(own: dict[str, Any], tmp_path: Path) -> None:
    write_csv(Path(own["interactions"]["path"]), *INTERACTIONS, "u9,00,1", "u0,00,900")
    section = {**own, "duplicates": "first", "user_core": 2, "item_core": 2}
    report = json.loads((prepared(section, tmp_path / "work") / "report.json").read_text())
    assert [step["interactions"] for step in report["steps"]] == [14, 14, 13, 12]
    assert len(report["interactions_sha256"]) == 64
    other = json.loads((prepared({**section, "user_core": 1}, tmp_path / "other") / "report.json").read_text())
    assert other["interactions_sha256"] != report["interactions_sha256"]


def test_a_split_by_time_is_written_as_such(own: dict[str, Any], tmp_path: Path) -> None:
    section = {**own, "split": "time", "validation_share": 0.2, "test_share": 0.2}
    table = rows(prepared(section, tmp_path / "work") / "interactions.parquet")
    newest = max(row["timestamp"] for row in table if row["split"] == "train")
    assert all(row["timestamp"] > newest for row in table if row["split"] != "train")


def test_items_missing_from_the_items_file_are_an_error_or_dropped(own: dict[str, Any], tmp_path: Path) -> None:
    write_csv(Path(own["interactions"]["path"]), *INTERACTIONS, "u0,77,900", "u1,78,900")
    message = refusal(own, tmp_path / "one")
    assert "lacks 2 items that have interactions ('77', '78')" in message
    assert 'prepare.missing_items = "drop"' in message
    output = prepared({**own, "missing_items": "drop"}, tmp_path / "two")
    assert {row["item_id"] for row in rows(output / "interactions.parquet")} == {"00", "01", "02", "03"}


def test_validation_may_train_where_everything_was_chosen(own: dict[str, Any], tmp_path: Path) -> None:
    never = {"stop_at_epoch": 1}
    output = prepared({**own, "train_on_validation": True}, tmp_path / "work", finetune=never)
    assert [row["split"] for row in rows(output / "interactions.parquet")][:4] == ["train", "train", "train", "test"]
    assert "Validation interactions are training here" in (output / "report.md").read_text()


def test_a_leak_stops_the_stage(own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = prepare.leave_one_out

    def leaky(interactions: Any) -> Any:
        split = right(interactions)
        split[0], split[1] = TEST, TRAIN
        return split

    monkeypatch.setattr(prepare, "leave_one_out", leaky)
    with pytest.raises(TrainingError, match="leak"):
        prepared(own, tmp_path / "work")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (INTERACTIONS[:1], "holds no interactions"),
        (
            ("user_id,item,timestamp", "1,2,3"),
            "no column 'item_id' ([prepare.interactions] item); did you mean 'item'?",
        ),
        ((*INTERACTIONS, ",00,5"), "row 13: 'user_id is empty'"),
        ((*INTERACTIONS, '"a\tb",00,5'), "row 13: 'user_id has a control character'"),
        ((*INTERACTIONS, "u1,00,soon"), "row 13: 'timestamp soon is not a time in seconds'"),
        ((*INTERACTIONS, "u1,00,", "u1,00,"), "row 13: 'timestamp is empty'; 2 rows are like that"),
        (INTERACTIONS[:3], "no user has three interactions"),
    ],
)
def test_bad_interactions_are_a_sentence_with_the_place(
    own: dict[str, Any], tmp_path: Path, lines: tuple[str, ...], said: str
) -> None:
    write_csv(Path(own["interactions"]["path"]), *lines)
    message = refusal(own, tmp_path / "work")
    assert said in message
    assert not (tmp_path / "work" / "prepare" / "items.parquet").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("id,title,genres", "1,a,b"), "no column 'item_id' ([prepare.items] item)"),
        (("item_id,titel,genres", "1,a,b"), "([prepare.items] metadata.title); did you mean 'titel'?"),
        ((*ITEMS, "00,Again,a"), "item '00' has 2 rows"),
        ((*ITEMS, ",Nameless,a"), "row 6: 'item_id is empty'"),
    ],
)
def test_bad_items_are_a_sentence_with_the_place(
    own: dict[str, Any], tmp_path: Path, lines: tuple[str, ...], said: str
) -> None:
    write_csv(Path(own["items"]["path"]), *lines)
    assert said in refusal(own, tmp_path / "work")


def test_filters_that_leave_nothing_say_which_one(own: dict[str, Any], tmp_path: Path) -> None:
    assert "user_core = 9, item_core = 1" in refusal({**own, "user_core": 9}, tmp_path / "work")


def test_a_rating_that_is_no_number_is_named_with_its_row(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "user_id,item_id,timestamp,rating", "u,a,1,5", "u,b,2,good")
    assert "row 2: 'rating good is not of type number'" in refusal(
        {"interactions": {"path": path, "rating": "rating"}}, tmp_path / "work"
    )


def test_the_stage_depends_on_the_users_files(own: dict[str, Any]) -> None:
    assert files_read(recipe(own)) == [Path(own["interactions"]["path"]), Path(own["items"]["path"])]
    assert files_read(recipe()) == []


def test_the_summary_is_said(tmp_path: Path) -> None:
    progress = RememberingProgress()
    run_stage(STAGE, recipe(), tmp_path, progress)
    assert progress.lines == ["120 users, 48 items, 1,198 interactions, 120 of them test"]


def test_movietweetings_has_the_known_5_core(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "movietweetings"
    section = {
        "interactions": {"path": str(folder / "interactions.csv"), "rating": "rating"},
        "items": {"path": str(folder / "items.csv"), "metadata": {**METADATA, "year": "integer"}},
        "user_core": 5,
        "item_core": 5,
    }
    output = prepared(section, tmp_path)
    table = pl.read_parquet(output / "interactions.parquet")
    counts = table.select(users=pl.col("user_id").n_unique(), items=pl.col("item_id").n_unique(), rows=pl.len())
    assert counts.row(0) == (4_333, 2_414, 68_055)
    lengths = table.group_by("user_id").len()["len"]
    assert (lengths.min(), lengths.median(), lengths.max()) == (5, 10, 275)
    assert pl.read_parquet(output / "items.parquet")["item_id"].str.len_chars().min() == 7  # leading zeros survive
