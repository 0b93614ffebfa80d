"""The output directory of batch scoring, and the protocol that makes it whole however often the job is killed.

    _JOB.json          what is computed, from what, with what: written first, compared at every start
    part-00000.parquet … the rows of one shard each, in input order
    _commits/part-00000.json … rows, bytes and sha256 of a part: it counts only with its record, and only if they agree
    _MANIFEST.json     the job and all records
    _SUCCESS           empty, written last

Every file is written aside, synced, renamed and its directory synced, so under its own name it is whole. Nothing in any
of them depends on when or where it was written, so a finished directory is the same bytes however it came to be. Knows
neither requests nor models.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from genrec.bundle.layout import sha256_of, sync
from genrec.errors import InputError, LockedError
from service.score_part import ScoredRow, encode

FORMAT_VERSION = 1
JOB, MANIFEST, SUCCESS, COMMITS = "_JOB.json", "_MANIFEST.json", "_SUCCESS", "_commits"
ASIDE, LOCK = ".tmp", ".lock"

Job = Mapping[str, str | int | bool | None]
"""Everything the bytes of the output depend on, by name."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What a part must be to count."""

    file: str
    rows: int
    bad_rows: int
    bytes: int
    sha256: str


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the output directory, made if absent; the lock ends with the process, however that ends.

    Raises:
        LockedError: another run holds it.
        InputError: it cannot be made.
    """
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{directory} is being written by another run; wait for it or give another --output."
            ) from error
        yield


class ScoreOutput:
    """An output directory of one job. Open it while it is `held`.

    Attributes:
        directory: where.
        committed: shard number → record of a part that is there and whole.
    """

    def __init__(self, directory: Path, job: Job, committed: dict[int, PartRecord]) -> None:
        self.directory = directory
        self.committed = committed
        self._job = job

    @classmethod
    def open(cls, directory: Path, job: Job, *, overwrite: bool = False) -> Self:
        """Begin a job, or go on with it: every part that is there is read and held against its record.

        Args:
            directory: empty, or the output of a job.
            job: what is to be computed.
            overwrite: remove the output of another job instead of refusing; what is no output stays.

        Raises:
            InputError: the directory holds another job, or files that are not ours.
        """
        _check_job(directory, job, overwrite)
        output = cls(directory, job, {})
        with _writing(directory):
            shutil.rmtree(directory / ASIDE, ignore_errors=True)
            (directory / ASIDE).mkdir()
            (directory / COMMITS).mkdir(exist_ok=True)
        if not (directory / JOB).exists() or _read_json(directory / JOB) != job:
            with _writing(directory):
                _remove_output(directory)
            output._place(JOB, _json(job))
        output.committed = dict(_whole_parts(directory))
        return output

    @property
    def finished(self) -> bool:
        """Whether the job is done, and every part as it was when it was done."""
        manifest = self.directory / MANIFEST
        return (self.directory / SUCCESS).exists() and manifest.exists() and manifest.read_bytes() == self._manifest()

    @property
    def num_rows(self) -> int:
        """Rows in committed parts."""
        return sum(record.rows for record in self.committed.values())

    @property
    def num_bad_rows(self) -> int:
        """Of them, those with an error."""
        return sum(record.bad_rows for record in self.committed.values())

    def reopen(self) -> None:
        """Take back that the job is done, before a part of it is written again."""
        with _writing(self.directory):
            for name in (SUCCESS, MANIFEST):  # in this order: there is no success without a manifest
                (self.directory / name).unlink(missing_ok=True)
                sync(self.directory)

    def commit(self, number: int, rows: Sequence[ScoredRow]) -> None:
        """Write a shard's part and its record.

        Raises:
            InputError: it cannot be written; what was committed stays.
        """
        file_format = str(self._job["output_format"])
        name = f"part-{number:05d}"
        content = encode(rows, file_format)
        record = PartRecord(
            file=f"{name}.{file_format}",
            rows=len(rows),
            bad_rows=sum(row.error is not None for row in rows),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        self._place(record.file, content)
        self._place(f"{COMMITS}/{name}.json", _sealed(record))
        self.committed[number] = record

    def finish(self, num_shards: int, num_rows: int) -> None:
        """Declare the job done.

        Raises:
            InputError: the parts are not what was read.
        """
        if sorted(self.committed) != list(range(num_shards)) or self.num_rows != num_rows:
            raise InputError(
                f"{self.directory} holds {self.num_rows} rows in {len(self.committed)} parts, the input {num_rows} in "
                f"{num_shards}: one of them was changed meanwhile. Start again with --overwrite."
            )
        self._place(MANIFEST, self._manifest())
        self._place(SUCCESS, b"")
        self.tidy()

    def tidy(self) -> None:
        """Remove what is only needed while writing."""
        shutil.rmtree(self.directory / ASIDE, ignore_errors=True)

    def _manifest(self) -> bytes:
        records = [record for _, record in sorted(self.committed.items())]
        return _json(
            {
                "format_version": FORMAT_VERSION,
                "key": hashlib.sha256(_json(self._job)).hexdigest(),
                "job": dict(self._job),
                "parts": [asdict(record) for record in records],
                "rows": self.num_rows,
                "bad_rows": self.num_bad_rows,
                "bytes": sum(record.bytes for record in records),
            }
        )

    def _place(self, name: str, content: bytes) -> None:
        target = self.directory / name
        with _writing(self.directory):
            aside = self.directory / ASIDE / target.name
            _write_aside(aside, content)
            _rename(aside, target)
            sync(target.parent)


def _write_aside(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _rename(aside: Path, target: Path) -> None:
    aside.replace(target)


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write in {directory}: {error.strerror or error}; "
            "mend that and start again, finished parts are kept."
        ) from error


def _check_job(directory: Path, job: Job, overwrite: bool) -> None:
    if not (directory / JOB).exists():
        if foreign := [path.name for path in directory.iterdir() if path.name not in (LOCK, ASIDE, COMMITS)]:
            raise InputError(
                f"{directory} holds {sorted(foreign)[0]!r} and is not the output of a scoring job; "
                "give an empty or new directory as --output."
            )
        return
    if overwrite:
        return
    there = _read_json(directory / JOB)
    if there is None:
        raise InputError(f"{directory / JOB} is damaged; --overwrite starts again.")
    changed = [name for name in sorted({*job, *there}) if there.get(name) != job.get(name)]
    if changed:
        what = "; ".join(f"{name} was {str(there.get(name))[:40]}, is {str(job.get(name))[:40]}" for name in changed)
        raise InputError(
            f"{directory} is the output of another job: {what}. Give another --output, or --overwrite to replace it."
        )


def _remove_output(directory: Path) -> None:
    """Remove a job's output but for `_JOB.json`: killed half-way, the directory is still known as ours."""
    for pattern in (SUCCESS, MANIFEST, f"{COMMITS}/part-*.json", "part-*.parquet", "part-*.jsonl"):
        for file in directory.glob(pattern):
            file.unlink()
        sync(directory)


def _whole_parts(directory: Path) -> Iterator[tuple[int, PartRecord]]:
    """The parts that are as their records say; one that is not, or whose record is not, is scored again."""
    for file in sorted((directory / COMMITS).glob("part-*.json")):
        fields = _read_json(file) or {}
        fields.pop("check", None)
        try:
            record = PartRecord(**fields)
            part = directory / Path(record.file).name
            if (
                file.read_bytes() == _sealed(record)
                and part.stem == file.stem
                and part.stat().st_size == record.bytes
                and sha256_of(part) == record.sha256
            ):
                yield int(file.stem.removeprefix("part-")), record
        except (TypeError, ValueError, OSError):
            continue


def _sealed(record: PartRecord) -> bytes:
    """A record's file; `check` tells a damaged one from a whole one."""
    check = hashlib.sha256(_json(asdict(record))).hexdigest()
    return _json({**asdict(record), "check": check})


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
