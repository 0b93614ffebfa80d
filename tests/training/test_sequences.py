from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.errors import DataError, TrainingError
from tests.training.bench import recipe, run_stage
from training.prepare import STAGE
from training.sequences import Sequences, load_sequences

Row = tuple[str, str, int, str]
ROWS: list[Row] = [
    ("u0", "b", 0, "train"),
    ("u0", "c", 1, "train"),
    ("u0", "a", 2, "validation"),
    ("u0", "d", 3, "test"),
    ("u1", "d", 0, "train"),
    ("u2", "a", 0, "test"),
    ("u2", "b", 1, "test"),
    ("u3", "c", 0, "validation"),
    ("u3", "c", 1, "validation"),
    ("u3", "a", 2, "test"),
]


def written(folder: Path, rows: list[Row] = ROWS, items: str = "abcd") -> Path:
    pl.DataFrame(rows, ["user_id", "item_id", "position", "split"], orient="row").with_columns(
        pl.col("position").cast(pl.Int32), timestamp=pl.col("position").cast(pl.Int64) * 1_000
    ).write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": list(items)}).write_parquet(folder / "items.parquet")
    return folder


def cases(found: list[Any]) -> list[tuple[int, list[int], int]]:
    return [(case.user, case.history.tolist(), case.target) for case in found]


def test_items_are_rows_of_the_items_file(tmp_path: Path) -> None:
    sequences = load_sequences(written(tmp_path))
    assert sequences.item_ids == ["a", "b", "c", "d"]
    assert sequences.user_ids == ["u0", "u1", "u2", "u3"]
    assert sequences.items.dtype == np.int32
    assert [sequence.tolist() for sequence in sequences.training_sequences()] == [[1, 2], [3]]
    assert [times.tolist() for times in sequences.training_times()] == [[0, 1_000], [0]]


def test_a_validation_history_is_training_and_a_test_history_holds_validation_too(tmp_path: Path) -> None:
    sequences = load_sequences(written(tmp_path))
    # u3's first interaction is held out and has no history: there is nothing to ask.
    assert cases(sequences.validation_cases()) == [(0, [1, 2], 0), (3, [2], 2)]
    assert cases(sequences.test_cases()) == [(0, [1, 2, 0], 3), (2, [0], 1), (3, [2, 2], 0)]


def test_popularity_counts_training_alone(tmp_path: Path) -> None:
    assert load_sequences(written(tmp_path)).training_counts().tolist() == [0, 1, 1, 1]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Sequences:
    return load_sequences(run_stage(STAGE, recipe(), tmp_path_factory.mktemp("toy")))


def test_leave_one_out_gives_every_user_one_case_of_each_kind(toy: Sequences) -> None:
    validation, test = toy.validation_cases(), toy.test_cases()
    assert [case.user for case in validation] == [case.user for case in test] == list(range(120))
    for sequence, before, last in zip(toy.training_sequences(), validation, test, strict=True):
        assert before.history.tolist() == sequence.tolist()
        assert last.history.tolist() == [*sequence.tolist(), before.target]
    assert toy.training_counts().sum() == sum(map(len, toy.training_sequences()))


def test_a_leak_in_the_files_is_noticed_when_they_are_read(tmp_path: Path) -> None:
    leaky = [(*row[:3], "train" if row[3] == "test" else row[3]) for row in ROWS]
    with pytest.raises(TrainingError, match="leak"):
        load_sequences(written(tmp_path, leaky))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the output of the prepare stage"):
        load_sequences(tmp_path)
    with pytest.raises(DataError, match="no row in items"):
        load_sequences(written(tmp_path, items="abc"))
    with pytest.raises(DataError, match="not sorted by user"):
        load_sequences(written(tmp_path, ROWS[:2] + ROWS[4:5] + ROWS[2:4]))
