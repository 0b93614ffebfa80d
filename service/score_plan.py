"""What a job is to read: the input as it was when the job began, cut into shards.

A shard is a fixed range of rows and becomes one part of the output. Where it begins in the file is found once, so that
any process can read it without what is before it. Knows neither what rows mean nor who scores them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from genrec.bundle.layout import sha256_of
from genrec.errors import DataError
from service.score_formats import RowFile, open_rows


@dataclass(frozen=True, slots=True)
class ShardSpan:
    """A fixed range of rows.

    Attributes:
        number: from 0.
        first_row: its first row's number in the input, from 0.
        num_rows: at least 1.
        start: the `place` of its first row in the file, see `RowFile`.
    """

    number: int
    first_row: int
    num_rows: int
    start: int

    def __str__(self) -> str:
        """As a person counts rows."""
        return f"rows {self.first_row + 1:,} to {self.first_row + self.num_rows:,}"


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was when the job began.

    Attributes:
        path: where.
        sha256: of its content.
        num_bytes, modified_ns: what tells soon that it was changed meanwhile.
    """

    path: Path
    sha256: str
    num_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Reads the file once."""
        status = path.stat()
        return cls(path, sha256_of(path), status.st_size, status.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Call it after the rows were read, before anything is made of them for good.

        Raises:
            DataError: the file is not as it was.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read any more: {error.strerror}.") from error
        if (status.st_size, status.st_mtime_ns) != (self.num_bytes, self.modified_ns):
            raise DataError(f"{self.path} was changed while it was read; start again with --overwrite.")


@dataclass(frozen=True, slots=True)
class Plan:
    """An input and its shards, in order. Memory grows with the number of shards alone."""

    source: Source
    spans: tuple[ShardSpan, ...]

    @classmethod
    def of(cls, path: Path, shard_rows: int) -> Self:
        """Hash a file and find where its shards of `shard_rows` rows begin, the last one of fewer.

        Raises:
            DataError: the file is broken from some row on, or was changed meanwhile.
        """
        source = Source.of(path)
        with open_rows(path) as rows:
            spans = tuple(_spans(rows, shard_rows))
        source.check_unchanged()
        return cls(source, spans)

    @property
    def num_rows(self) -> int:
        """Of all shards."""
        return sum(span.num_rows for span in self.spans)


def _spans(rows: RowFile, shard_rows: int) -> Iterator[ShardSpan]:
    number = first_row = 0
    start = rows.place
    while num_rows := rows.skip(shard_rows):
        yield ShardSpan(number, first_row, num_rows, start)
        number, first_row, start = number + 1, first_row + num_rows, rows.place
