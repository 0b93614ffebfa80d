"""`genrec score` from a test: rows in, exit code and rows out."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.answers import Answer
from genrec.commands import main
from genrec.errors import EngineError
from genrec.recommender import Recommender
from genrec.requests import Request

Rows = Sequence[Mapping[str, Any]]


def some_rows(count: int) -> list[dict[str, Any]]:
    """Histories of every length up to one more than a tiny bundle reads; its items are i0 to i39."""
    return [
        {"user_id": f"u{number}", "history": [f"i{(number * 7 + place) % 40}" for place in range(1 + number % 6)]}
        for number in range(count)
    ]


def write_rows(path: Path, rows: Rows) -> Path:
    """Rows as a file, in the format that its suffix says."""
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist([_with_filter_as_text(row) for row in rows]), path)
        case ".csv":
            names = list(rows[0])
            with path.open("w", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(names)
                writer.writerows([[cell(name, row.get(name)) for name in names] for row in rows])
    return path


def _with_filter_as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "filter": json.dumps(row["filter"])} if row.get("filter") is not None else dict(row)


def cell(name: str, value: object) -> object:
    if value is None:
        return ""
    return value if name == "user_id" else json.dumps(value)


def score(bundle: Path, source: Path, output: Path, *flags: str) -> int:
    """Run the command in this process, the worker too unless it is told otherwise; its exit code."""
    here = [] if "--workers" in flags else ["--workers", "1"]
    return command("--bundle", str(bundle), "--input", str(source), "--output", str(output), *here, *flags)


def command(*arguments: str) -> int:
    """`genrec score` in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["score", *arguments])
    return int(ended.value.code or 0)


def rows_of(output: Path) -> list[dict[str, Any]]:
    """The rows of all parts in the order of the manifest."""
    rows = []
    for part in json.loads((output / "_MANIFEST.json").read_text())["parts"]:
        file = output / part["file"]
        if file.suffix == ".parquet":
            rows += pq.read_table(file).to_pylist()
        else:
            rows += [json.loads(line) for line in file.read_text().splitlines()]
    return rows


def content_of(output: Path) -> dict[str, bytes]:
    """Every file of an output directory, by its path."""
    files = [path for path in sorted(output.rglob("*")) if path.is_file()]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def item_ids(row: Mapping[str, Any]) -> list[str]:
    return [item["item_id"] for item in row["items"]]


@pytest.fixture(scope="module")
def recommender(causal_bundle_path: Path) -> Recommender:
    return Recommender.load(causal_bundle_path)


class Model:
    """Stands before every recommender: what it was asked, and what it is to do instead of answering."""

    def __init__(self) -> None:
        self.asked: list[list[Request]] = []
        self.instead: Callable[[Sequence[Request]], None] = lambda requests: None
        self._attempt = Recommender.attempt

    def attempt(self, recommender: Recommender, requests: Sequence[Request]) -> list[Answer | EngineError]:
        self.asked.append(list(requests))
        self.instead(requests)
        return self._attempt(recommender, requests)


@pytest.fixture
def model(recommender: Recommender, causal_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The bundle is loaded once for the file; another one when it is asked for."""
    model, load = Model(), Recommender.load
    monkeypatch.setattr(Recommender, "attempt", lambda self, requests: model.attempt(self, requests))
    monkeypatch.setattr(
        Recommender, "load", lambda path, **kw: recommender if path == causal_bundle_path else load(path, **kw)
    )
    return model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", some_rows(25))
