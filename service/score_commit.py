"""How a part of a batch scoring job is committed, whoever made it: by any process, on any machine with the file system.

    part-00000.parquet       the rows of one shard, in input order
    _commits/part-00000.json rows, bytes and sha256 of a part: it counts only with its record, and only if they agree

A file is written aside under a name of its attempt, synced, renamed and its directory synced, so under its own name it
is whole. Of two attempts at one shard the first to commit wins. Parts are written aside in a directory that is named by
the job: once another job has begun in the output it is gone, and with it what a forgotten worker could still commit.
Knows neither requests nor models.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from genrec.bundle.layout import sha256_of, sync
from genrec.errors import InputError
from service.score_job import Job, key_of, read_json, to_json
from service.score_part import ScoredRow, encode

COMMITS, ASIDE = "_commits", ".tmp"


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What a part must be to count."""

    file: str
    rows: int
    bad_rows: int
    bytes: int
    sha256: str


class Commits:
    """The parts of a job in an output directory.

    Attributes:
        directory: where.
        part_format: parquet or jsonl.
        aside: where parts are written before they have their name.
    """

    def __init__(self, directory: Path, job: Job) -> None:
        self.directory = directory
        self.part_format = str(job["output_format"])
        self.aside = directory / ASIDE / key_of(job)[:16]

    def prepare(self) -> None:
        """Make the directories. To be called once for a job, by whoever began it.

        Raises:
            InputError: they cannot be made.
        """
        with writing(self.directory):
            self.aside.mkdir(parents=True, exist_ok=True)
            (self.directory / COMMITS).mkdir(exist_ok=True)

    def whole(self) -> dict[int, PartRecord]:
        """Shard number → record of every part that is as its record says. Each is read."""
        files = sorted((self.directory / COMMITS).glob("part-*.json"))
        found = {int(file.stem.removeprefix("part-")): self._record(file) for file in files if _is_numbered(file)}
        return {number: record for number, record in found.items() if record is not None}

    def commit(self, number: int, rows: Sequence[ScoredRow]) -> PartRecord:
        """Write a shard's part and its record, unless another attempt has done so; the record that is there then.

        Raises:
            InputError: it cannot be written; what was committed stays.
        """
        name = f"part-{number:05d}"
        content = encode(rows, self.part_format)
        record = PartRecord(
            file=f"{name}.{self.part_format}",
            rows=len(rows),
            bad_rows=sum(row.error is not None for row in rows),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        with writing(self.directory), (self.aside / f"{name}.lock").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if (first := self._record(self.directory / COMMITS / f"{name}.json")) is not None:
                return first
            place(self.directory / record.file, content, self.aside)
            place(self.directory / COMMITS / f"{name}.json", _sealed(record), self.aside)
        return record

    def _record(self, file: Path) -> PartRecord | None:
        """A record; None if there is none, or it or its part is damaged."""
        fields = read_json(file) or {}
        fields.pop("check", None)
        try:
            record = PartRecord(**fields)
            part = self.directory / Path(record.file).name
            whole = (
                file.read_bytes() == _sealed(record)
                and part.stem == file.stem
                and part.stat().st_size == record.bytes
                and sha256_of(part) == record.sha256
            )
        except (TypeError, ValueError, OSError):
            return None
        return record if whole else None


def place(target: Path, content: bytes, aside: Path) -> None:
    """Put a file in its place, whole or not at all; when this returns it is on the disk.

    Args:
        target: its place.
        content: of the file.
        aside: a directory of the same file system, where it is written first.

    Raises:
        OSError: it cannot be written.
    """
    attempt = aside / f"{target.name}.{uuid4().hex}"
    _write_aside(attempt, content)
    _rename(attempt, target)
    sync(target.parent)


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Within it, what the file system refuses is an error of ours.

    Raises:
        InputError: with what it said.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write in {directory}: {error.strerror or error}; "
            "mend that and start again, finished parts are kept."
        ) from error


def _is_numbered(file: Path) -> bool:
    return file.stem.removeprefix("part-").isdigit()


def _sealed(record: PartRecord) -> bytes:
    """A record's file; `check` tells a damaged one from a whole one."""
    check = hashlib.sha256(to_json(asdict(record))).hexdigest()
    return to_json({**asdict(record), "check": check})


def _write_aside(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _rename(aside: Path, target: Path) -> None:
    aside.replace(target)
