"""The output directory of batch scoring: who may write in it, what is computed there, and when that is done.

    _JOB.json          what is computed, from what, with what: written first, compared at every start
    part-…, _commits/  the parts and their records, see `service/score_commit.py`
    _MANIFEST.json     the job and all records
    _SUCCESS           empty, written last

Nothing in any of them depends on when or where it was written, so a finished directory is the same bytes however it
came to be. Knows neither requests nor models.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Self, TextIO

from genrec.bundle.layout import sync
from genrec.errors import InputError, LockedError
from service.score_commit import ASIDE, COMMITS, Commits, PartRecord, place, writing
from service.score_job import JOB, Job, differences, key_of, read_json, to_json
from service.score_plan import Plan, ShardSpan

FORMAT_VERSION = 1
MANIFEST, SUCCESS, MADE_INPUT = "_MANIFEST.json", "_SUCCESS", "_input.parquet"
LOCK, WORKERS = ".lock", ".workers"

WORKERS_END_S = 5.0
"""Workers of a killed run, and those of a cluster, end a moment after it: a command started at once waits for them."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the output directory, made if absent; what is written aside there goes when it ends or begins again.

    The lock ends with the process, however that ends; it is not to be had while workers of such a process live.

    Raises:
        LockedError: another run holds it.
        InputError: it cannot be made, or holds files that are not ours.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("w")
    with lock:
        _take(lock, 0, f"{directory} is being written by another run; wait for it or give another --output.")
        with writing(directory), (directory / WORKERS).open("w") as workers:
            _take(workers, WORKERS_END_S, f"workers of a run that was killed still end in {directory}; try again soon.")
        _check_ours(directory)
        with writing(directory):
            shutil.rmtree(directory / ASIDE, ignore_errors=True)
            (directory / ASIDE).mkdir()
        try:
            yield
        finally:
            shutil.rmtree(directory / ASIDE, ignore_errors=True)


@contextmanager
def worked_in(directory: Path) -> Iterator[None]:
    """Within it no other run is given the output directory. Any number of workers may be.

    Raises:
        InputError: it is not there, or cannot be written in.
    """
    with writing(directory), (directory / WORKERS).open("r+") as workers:
        fcntl.flock(workers, fcntl.LOCK_SH)
        yield


def _take(lock: TextIO, patience_s: float, otherwise: str) -> None:
    until = monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if monotonic() >= until:
                raise LockedError(otherwise) from error
        sleep(0.05)


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
            InputError: the directory holds another job.
        """
        there = read_json(directory / JOB)
        if (directory / JOB).exists() and not overwrite:
            _check_same(directory, there, job)
        if there != job:
            with writing(directory):
                _remove_output(directory)
                place(directory / JOB, to_json(job), directory / ASIDE)
        commits = Commits(directory, job)
        commits.prepare()
        return cls(directory, job, commits.whole())

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
        with writing(self.directory):
            for name in (SUCCESS, MANIFEST):  # in this order: there is no success without a manifest
                (self.directory / name).unlink(missing_ok=True)
                sync(self.directory)

    def take_input(self, made: Path) -> None:
        """Keep the rows that were made for this job as its `MADE_INPUT`.

        Raises:
            InputError: they cannot be.
        """
        with writing(self.directory):
            sync(made)
            made.replace(self.directory / MADE_INPUT)
            sync(self.directory)

    def missing(self, plan: Plan) -> list[ShardSpan]:
        """The shards that are not committed, in order."""
        return [span for span in plan.spans if span.number not in self.committed]

    def finish(self, plan: Plan) -> None:
        """Declare the job done.

        Raises:
            InputError: the parts are not what the input has.
        """
        expected = {span.number: span.num_rows for span in plan.spans}
        if {number: record.rows for number, record in self.committed.items()} != expected:
            raise InputError(
                f"{self.directory} holds {self.num_rows} rows in {len(self.committed)} parts, the input "
                f"{plan.num_rows} in {len(expected)}: one of them was changed meanwhile. Start again with --overwrite."
            )
        with writing(self.directory):
            place(self.directory / MANIFEST, self._manifest(), self.directory / ASIDE)
            place(self.directory / SUCCESS, b"", self.directory / ASIDE)

    def _manifest(self) -> bytes:
        records = [record for _, record in sorted(self.committed.items())]
        return to_json(
            {
                "format_version": FORMAT_VERSION,
                "key": key_of(self._job),
                "job": dict(self._job),
                "parts": [asdict(record) for record in records],
                "rows": self.num_rows,
                "bad_rows": self.num_bad_rows,
                "bytes": sum(record.bytes for record in records),
            }
        )


def _check_ours(directory: Path) -> None:
    ours = (LOCK, WORKERS, ASIDE, COMMITS)
    if (directory / JOB).exists():
        return
    if foreign := sorted(path.name for path in directory.iterdir() if path.name not in ours):
        raise InputError(
            f"{directory} holds {foreign[0]!r} and is not the output of a scoring job; "
            "give an empty or new directory as --output."
        )


def _check_same(directory: Path, there: Job | None, job: Job) -> None:
    if there is None:
        raise InputError(f"{directory / JOB} is damaged; --overwrite starts again.")
    if differ := differences(there, job):
        raise InputError(
            f"{directory} is the output of another job: {differ}. Give another --output, or --overwrite to replace it."
        )


def _remove_output(directory: Path) -> None:
    """Remove a job's output but for `_JOB.json`: killed half-way, the directory is still known as ours."""
    for pattern in (SUCCESS, MANIFEST, f"{COMMITS}/part-*.json", "part-*.parquet", "part-*.jsonl", MADE_INPUT):
        for file in directory.glob(pattern):
            file.unlink()
        sync(directory)
