import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genrec.errors import DataError
from tests.training.bench import RememberingProgress, recipe
from training import datasets
from training.pipeline import run_pipeline
from training.prepare import STAGE

INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t50\t5\t881250949\n"
ITEM = (
    b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    b"50\tStar Wars\t1977\tAction Sci-Fi\n"
    b"172\tEmpire Strikes Back, The\t1980\tAction\n"
    b"267\tunkonwn\tunkonwn\tunknown\n"
    b'9\t"Quoted", A\t1990\tDrama\n'
)


class Pip:
    """Stands in for ``pip download``: puts a wheel with the given files into the asked folder."""

    def __init__(self, files: dict[str, bytes] | None, code: int = 0) -> None:
        self.files, self.code, self.calls = files, code, 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        if self.files is not None:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
                for name, content in self.files.items():
                    wheel.writestr(f"{datasets.ML_100K_FOLDER}/{name}", content)
        return subprocess.CompletedProcess(command, self.code, "", "ERROR: no route\nERROR: gave up")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Files whose checksums are the pinned ones while the test runs."""
    content = {"ml-100k.inter": INTER, "ml-100k.item": ITEM, "ml-100k.user": b"user_id:token\n1\n"}
    for name, data in content.items():
        monkeypatch.setitem(datasets.ML_100K_SHA256, name, hashlib.sha256(data).hexdigest())
    return content


def test_the_files_are_fetched_once_and_again_when_damaged(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(files)
    monkeypatch.setattr(subprocess, "run", pip)
    folder = datasets.fetch_ml_100k(tmp_path / "cache")
    assert datasets.fetch_ml_100k(tmp_path / "cache") == folder
    assert pip.calls == 1
    (folder / "ml-100k.item").write_bytes(b"damaged")
    assert (datasets.fetch_ml_100k(tmp_path / "cache") / "ml-100k.item").read_bytes() == ITEM
    assert pip.calls == 2
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ml-100k"]


def test_films_have_titles_as_people_write_them(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    items = datasets.ml_100k(tmp_path).items
    assert items is not None
    assert items.frame.select("item_id", "title", "year", "genres").collect().rows() == [
        ("50", "Star Wars (1977)", "1977", ["Action", "Sci-Fi"]),
        ("172", "The Empire Strikes Back (1980)", "1980", ["Action"]),
        ("267", "unknown", None, [""]),
        ("9", 'A "Quoted" (1990)', "1990", ["Drama"]),
    ]


def test_an_index_that_cannot_be_reached_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(None, code=1))
    with pytest.raises(DataError, match=r"could not fetch recbole==1\.2\.1 \(ERROR: gave up\); check the network"):
        datasets.fetch_ml_100k(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def hang(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 1)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataError, match="within 300 s"):
        datasets.fetch_ml_100k(tmp_path)


def test_other_files_than_the_pinned_ones_are_refused(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", Pip({**files, "ml-100k.inter": INTER + b"1\t51\t1\t0\n"}))
    with pytest.raises(DataError, match="other MovieLens-100K files than expected"):
        datasets.fetch_ml_100k(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_toy_data_are_the_same_every_time_and_mostly_follow_a_chain() -> None:
    first, second = (datasets.toy().interactions.frame.collect() for _ in range(2))
    assert first.equals(second)
    items = datasets.toy().items
    assert items is not None
    numbers = {item: row for row, item in enumerate(items.frame.collect()["item_id"])}
    steps = first.with_columns(row=pl.col("item_id").replace_strict(numbers, return_dtype=pl.Int64))
    steps = steps.with_columns(step=pl.col("row").diff().over("user_id") % len(numbers))
    assert (steps["step"].drop_nulls() == 1).mean() > 0.7  # type: ignore[operator]


@pytest.mark.system
def test_movielens_100k_comes_through_pip_with_its_known_counts(tmp_path: Path) -> None:
    run_pipeline([STAGE], recipe({"dataset": "ml-100k"}), tmp_path, RememberingProgress())
    interactions = pl.read_parquet(tmp_path / "prepare" / "interactions.parquet")
    assert interactions.select(pl.col("user_id", "item_id").n_unique()).row(0) == (943, 1682)
    assert interactions.height == 100_000
