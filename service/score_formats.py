"""JSONL, CSV and Parquet as rows that are parsed only when asked for, from any row on.

Knows how each format holds fields and lists, and where a row begins; what the fields mean is `service/score_input.py`'s
business. Memory does not grow with the length of a file.
"""

import csv
import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from genrec.errors import DataError, RequestError, one_line

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

MAX_LINE_BYTES = 1 << 24
"""A longer line, or cell of CSV, is not read: it would be held in memory whole."""

_BLOCK_BYTES = 1 << 20  # read at a time
_PARQUET_ROWS = 1000  # decoded at a time

_A_LIST = 'a list is written ["50", "181"]'
_TRUE_OR_FALSE = ("exclude_history", "prove_exact")
_WRITTEN = {"filter": 'a filter is written {"where": {"year": {"gte": 1990}}}'}

Fields = dict[str, Any]

RawRow = Callable[[], Fields]
"""A row not yet parsed: gives its fields, or raises RequestError if that cannot be."""


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


class RowFile(ABC):
    """An open file of rows. One thread at a time may read it.

    Attributes:
        path: which file.
        columns: of a table; for JSONL the keys of the first row, none if that cannot be parsed.
        place: where the next row begins: a byte, or in Parquet the row's number.
    """

    path: Path
    columns: Sequence[str]
    place: int

    @abstractmethod
    def skip(self, count: int) -> int:
        """Pass over the next `count` rows; how many there were.

        Raises:
            DataError: the file is broken in a way that leaves the rest of it unreadable.
        """

    @abstractmethod
    def close(self) -> None:
        """Let the file go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def read(self, place: int, count: int) -> list[RawRow]:
        """The `count` rows from `place` on, where a row begins; fewer at the end of the file. Quick in ascending order.

        Raises:
            DataError: as `skip`.
        """


def open_rows(path: Path) -> RowFile:
    """Open a file at its first row.

    Raises:
        DataError: it cannot be read, is of no known format, or has a column of a type that is not plain data.
    """
    match format_of(path):
        case "jsonl":
            return _JsonlRows(path)
        case "csv":
            return _CsvRows(path)
    return _ParquetRows(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


class _TextRows(RowFile):
    """Rows whose place is a byte: those that follow each other are read through one iterator."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _readable(path):
            self._stream = path.open("rb")
        self._from(0)

    def skip(self, count: int) -> int:
        with _readable(self.path):
            return sum(1 for _ in islice(self._rows, count))

    def read(self, place: int, count: int) -> list[RawRow]:
        if place != self.place:
            self._from(place)
        with _readable(self.path):
            return list(islice(self._rows, count))

    def close(self) -> None:
        self._stream.close()

    def _from(self, place: int) -> None:
        self._stream.seek(place)
        self.place = place
        self._rows = self._iterate()

    @abstractmethod
    def _iterate(self) -> Iterator[RawRow]:
        """The rows from `place`, kept up to date, on."""


class _JsonlRows(_TextRows):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.columns = [name for row in self.read(0, 1) for name in row()]
        except RequestError:
            self.columns = []
        self._from(0)

    def _iterate(self) -> Iterator[RawRow]:
        while line := self._stream.readline(MAX_LINE_BYTES):
            too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
            if too_long:
                _skip_line(self._stream)
            self.place = self._stream.tell()
            if too_long:
                yield _too_long
            elif line.strip():
                yield partial(_json_object, line)


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


class _CsvRows(_TextRows):
    def __init__(self, path: Path) -> None:
        csv.field_size_limit(MAX_LINE_BYTES)
        super().__init__(path)
        with _readable(path):
            self.columns = next(csv.reader(self._lines(), strict=True), [])
        self._from(self.place)

    def _iterate(self) -> Iterator[RawRow]:
        for cells in csv.reader(self._lines(), strict=True):
            if cells:
                yield partial(_csv_fields, self.columns, cells)

    def _lines(self) -> Iterator[str]:
        """Lines with their ends, `\\r`, `\\n` or both; the reader takes one only when its row needs it."""
        rest = b""
        while block := self._stream.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).splitlines(keepends=True)
            for line in lines:
                yield self._text(line)
        if rest:
            yield self._text(rest)

    def _text(self, line: bytes) -> str:
        # Bytes that are not UTF-8 stay with their own row: they come through as surrogates, which no id may hold.
        text = line.decode("utf-8" if self.place else "utf-8-sig", errors="surrogateescape")
        self.place += len(line)
        return text


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


class _ParquetRows(RowFile):
    """Rows whose place is their number. Within a group of rows there is no way to one but past those before it."""

    _batch_start: int
    _batch_end: int

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = 0
        with _readable(path):
            self._file = pq.ParquetFile(path)
            groups = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self.columns = _plain_columns(path, self._file.schema_arrow)
        self._group_ends = list(accumulate(groups))
        self._open_group(0)

    def close(self) -> None:
        self._file.close()

    def skip(self, count: int) -> int:
        before = self.place
        self.place = min(before + count, self._file.metadata.num_rows)
        return self.place - before

    def read(self, place: int, count: int) -> list[RawRow]:
        self.place = place
        count = self.skip(count)
        rows: list[RawRow] = []
        with _readable(self.path):
            while len(rows) < count:
                batch = self._batch_with(place + len(rows))
                found = batch.slice(place + len(rows) - self._batch_start, count - len(rows))
                rows += [partial(_parquet_fields, row) for row in found.to_pylist()]
        return rows

    def _batch_with(self, row: int) -> pa.RecordBatch:
        group = bisect_right(self._group_ends, row)
        if group != self._group or row < self._batch_start:
            self._open_group(group)
        while self._batch_end <= row:
            self._batch = next(self._batches)
            self._batch_start, self._batch_end = self._batch_end, self._batch_end + self._batch.num_rows
        return self._batch

    def _open_group(self, group: int) -> None:
        self._group = group
        self._batches = self._file.iter_batches(_PARQUET_ROWS, row_groups=[group], use_threads=False)
        self._batch_start = self._batch_end = self._group_ends[group - 1] if group else 0


def _parquet_fields(row: Fields) -> Fields:
    # No one type fits every filter, so a column of them is JSON text, as in CSV.
    asked = row.get("filter")
    return {**row, "filter": _cell("filter", asked)} if isinstance(asked, str) else row


def _plain_columns(path: Path, schema: pa.Schema) -> list[str]:
    # A type that comes with code of its own has run that code in other readers (Ray, CVE-2026-41486).
    for field in schema:
        if isinstance(field.type, pa.BaseExtensionType):
            raise DataError(f"{path} column {field.name!r} is of the extension type {field.type}; store plain values.")
    return list(schema.names)
