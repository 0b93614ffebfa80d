"""JSONL, CSV and Parquet as a stream of rows that are parsed only when asked for.

Knows how each format holds fields and lists; what the fields mean is `service/score_input.py`'s business. Memory does
not grow with the length of a file.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from genrec.errors import DataError, RequestError, one_line

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

MAX_LINE_BYTES = 1 << 24
"""A longer line, or cell of CSV, is not read: it would be held in memory whole."""

_PARQUET_ROWS = 1000  # decoded at a time

_A_LIST = 'a list is written ["50", "181"]'
_TRUE_OR_FALSE = ("exclude_history", "prove_exact")
_WRITTEN = {"filter": 'a filter is written {"where": {"year": {"gte": 1990}}}'}

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row not yet parsed.

    Attributes:
        fields: parses it; RequestError if that cannot be.
        fraction: how much of the file has been read when it has.
    """

    fields: Callable[[], Fields]
    fraction: float


def format_of(path: Path) -> str:
    """jsonl, csv or parquet, by the file's suffix.

    Raises:
        DataError: there is no such file, or it is none of these.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; --input takes one {', '.join(FORMATS)} file.")
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path} must end in one of {', '.join(FORMATS)}, so that its format is known.")
    return FORMATS[path.suffix.lower()]


def columns_of(path: Path) -> Sequence[str]:
    """The columns of a table; for JSONL the keys of the first row, none if that cannot be parsed.

    Raises:
        DataError: the file cannot be read, or has a column of a type that is not plain data.
    """
    match format_of(path):
        case "csv":
            return _csv_header(path)
        case "parquet":
            with _parquet(path) as file:
                return _plain_columns(path, file.schema_arrow)
    first = next(read_rows(path), None)
    try:
        return list(first.fields()) if first else []
    except RequestError:
        return []


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file, in order.

    Raises:
        DataError: the file is broken in a way that leaves the rest of it unreadable.
    """
    readers = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
    try:
        yield from readers[format_of(path)](path)
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    size = max(path.stat().st_size, 1)
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                _skip_line(stream)
                yield RawRow(_too_long, stream.tell() / size)
            elif line.strip():
                yield RawRow(partial(_json_object, line), stream.tell() / size)


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _too_long() -> Fields:
    raise RequestError(f"The line is longer than {MAX_LINE_BYTES} bytes.")


def _json_object(line: bytes) -> Fields:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RequestError("The line is not UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise RequestError("The line is not JSON.") from error
    if not isinstance(value, dict):
        raise RequestError("The line is not a JSON object.")
    return value


def _csv_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            return next(csv.reader(stream, strict=True), [])
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


def _read_csv(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(MAX_LINE_BYTES)
    size = max(path.stat().st_size, 1)
    # Bytes that are not UTF-8 stay with their own row: they come through as surrogates, which no id may hold.
    with (
        path.open("rb") as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        reader = csv.reader(text, strict=True)
        header = next(reader, [])
        for cells in reader:
            if cells:
                yield RawRow(partial(_csv_fields, header, cells), stream.tell() / size)


def _csv_fields(header: Sequence[str], cells: Sequence[str]) -> Fields:
    if len(cells) != len(header):
        raise RequestError(f"The row has {len(cells)} cells, the header {len(header)}.")
    return {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True) if cell}


def _cell(name: str, cell: str) -> object:
    if name == "user_id":
        return cell
    try:
        # Tables write true and false in any case.
        return json.loads(cell.lower() if name in _TRUE_OR_FALSE else cell)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The cell is not JSON; {_WRITTEN.get(name, _A_LIST)}.", f"/{name}") from error


def _read_parquet(path: Path) -> Iterator[RawRow]:
    with _parquet(path) as file:
        total, read = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(_PARQUET_ROWS):
            for row in batch.to_pylist():
                read += 1
                yield RawRow(partial(_parquet_fields, row), read / total)


def _parquet_fields(row: Fields) -> Fields:
    # No one type fits every filter, so a column of them is JSON text, as in CSV.
    asked = row.get("filter")
    return {**row, "filter": _cell("filter", asked)} if isinstance(asked, str) else row


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


def _plain_columns(path: Path, schema: pa.Schema) -> list[str]:
    # A type that comes with code of its own has run that code in other readers (Ray, CVE-2026-41486).
    for field in schema:
        if isinstance(field.type, pa.BaseExtensionType):
            raise DataError(f"{path} column {field.name!r} is of the extension type {field.type}; store plain values.")
    return list(schema.names)
