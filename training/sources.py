"""Tables that users bring: CSV, TSV, JSONL and Parquet, a file, a glob or a directory, scanned and never loaded whole.

Knows formats and where a row came from. Knows nothing of what the columns mean.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from genrec.errors import DataError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

ROW = "__row"
"""Running number of a row over all files, from 0."""
FILE = "__file"


@dataclass(frozen=True, slots=True)
class Source:
    """A scanned table.

    Attributes:
        frame: Its columns, and `ROW` and `FILE`.
        files: The files, sorted by path.
        is_text: Whether every column is a string because the format has no types (CSV).
        path: As the recipe names it.
    """

    frame: pl.LazyFrame
    files: tuple[Path, ...]
    is_text: bool
    path: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the user's columns."""
        return tuple(name for name in self.schema if name not in (ROW, FILE))

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """Column → type."""
        with reading(self.path):
            return self.frame.collect_schema()

    def require(self, columns: Mapping[str, str], section: str) -> None:
        """Check that the file has the columns that the recipe names.

        Args:
            columns: Recipe key → column name.
            section: Of the recipe, for the message.

        Raises:
            DataError: A column is absent; the message names the nearest and lists all.
        """
        for key, column in columns.items():
            if column not in self.columns:
                close = difflib.get_close_matches(column, self.columns, n=1, cutoff=0.5)
                nearest = f"; did you mean {close[0]!r}?" if close else "."
                raise DataError(
                    f"{self.path} has no column {column!r} ([{section}] {key}){nearest} "
                    f"Its columns: {', '.join(self.columns)}"
                )

    def place(self, row: int) -> str:
        """Where a row is, for a message: file, and number from 1 without the header."""
        with reading(self.path):
            found = self.frame.filter(pl.col(ROW) == row).select(FILE).collect(engine="streaming")
            name = found.item()
            first = self.frame.filter(pl.col(FILE) == name).select(pl.col(ROW).min()).collect(engine="streaming")
        return f"{name}, row {row - first.item() + 1}"


def find_files(path: str) -> tuple[Path, ...]:
    """The data files of a recipe's path, sorted: a file, a glob's matches, or all data files under a directory.

    Files and folders whose name starts with a dot or an underscore (``_SUCCESS``) are not data.

    Raises:
        DataError: Nothing is there, or the files are of several or unknown formats.
    """
    base = Path(path)
    if base.is_file():
        files: Sequence[Path] = [base]
    elif base.is_dir():
        files = [file for file in base.rglob("*") if file.is_file() and not _hidden(file.relative_to(base))]
    elif any(sign in path for sign in "*?["):
        anchor = Path(base.anchor) if base.is_absolute() else Path()
        pattern = str(base.relative_to(base.anchor)) if base.is_absolute() else path
        files = [file for file in anchor.glob(pattern) if file.is_file()]
    else:
        files = []
    if not files:
        raise DataError(f"{path}: no data there; relative paths are read from the current directory, {Path.cwd()}")
    formats = {FORMATS.get(file.suffix.lower(), file.suffix or "no suffix") for file in files}
    if len(formats) > 1 or not formats <= set(FORMATS.values()):
        raise DataError(
            f"{path} must hold files of one format ({', '.join(FORMATS)}), found: {', '.join(sorted(formats))}"
        )
    return tuple(sorted(files))


def scan(path: str, separator: str = ",") -> Source:
    """Scan the table at `path`; nothing is read yet but what a schema needs.

    CSV columns stay strings. Folders named ``key=value`` on the way become string columns.

    Args:
        path: A file, a glob or a directory.
        separator: Between CSV fields; TSV files have tabs.

    Raises:
        DataError: As `find_files`, or a file is empty or broken.
    """
    files = find_files(path)
    kind = FORMATS[files[0].suffix.lower()]
    with reading(path):
        match kind:
            case "csv":
                tabs = files[0].suffix.lower() == ".tsv"
                frame = pl.scan_csv(
                    list(files),
                    separator="\t" if tabs else separator,
                    infer_schema=False,
                    row_index_name=ROW,
                    include_file_paths=FILE,
                )
            case "jsonl":
                # A key may first appear late, or in one file only, and be a number here and a string there.
                tables = [pl.scan_ndjson(file, infer_schema_length=None, include_file_paths=FILE) for file in files]
                frame = pl.concat(tables, how="diagonal_relaxed").with_row_index(ROW)
            case _:
                frame = pl.scan_parquet(
                    list(files), hive_partitioning=False, row_index_name=ROW, include_file_paths=FILE
                )
        known = frame.collect_schema().names()
    keys = _folder_keys(files[0], Path(path))
    frame = frame.with_columns(
        pl.col(FILE).str.extract(rf"[/\\]{re.escape(key)}=([^/\\]+)[/\\]").alias(key)
        for key in keys
        if key not in known
    )
    return Source(frame=frame, files=files, is_text=kind == "csv", path=path)


@contextmanager
def reading(path: str) -> "Iterator[None]":
    """Turn what polars raises on a broken file into a sentence with its name."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _folder_keys(file: Path, base: Path) -> list[str]:
    """Names of the ``key=value`` folders between the recipe's directory and a file."""
    folders = file.relative_to(base).parts[:-1] if base.is_dir() else file.parts[:-1]
    return [folder.partition("=")[0] for folder in folders if "=" in folder]
