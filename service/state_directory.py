"""The directory where a service keeps what must outlive it, written by one process at a time.

A file is written aside, synced, renamed, and its directory synced: under its own name it is whole, and what was
acknowledged is there after a crash. Knows nothing of what the files mean.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Self

from genrec.bundle.layout import sync
from genrec.errors import InputError, LockedError
from service.errors import NotReady, NotStored

LOCK = ".lock"
PARTIAL = ".partial"


class StateDirectory:
    """Made by `open`, held by this process until it is closed or the process ends, however that comes."""

    def __init__(self, path: Path, lock: BinaryIO) -> None:
        self.path = path
        self._lock = lock
        self._one_writer = Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Hold the directory, made if absent, and remove what a crash left half written.

        Raises:
            LockedError: another process holds it.
            InputError: it cannot be made or written in.
        """
        with _readable(path):
            if not path.is_dir():
                path.mkdir(parents=True)
                sync(path.parent)
            lock = (path / LOCK).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise LockedError(
                f"the state directory {path} is held by another service; stop that one, "
                "or give this one a GENREC_STATE_DIR of its own."
            ) from error
        with _readable(path):
            for leftover in path.glob(f"*{PARTIAL}"):
                leftover.unlink()
        return cls(path, lock)

    def close(self) -> None:
        """Let the directory go, once nothing is being written; a write that comes later is refused."""
        with self._one_writer:
            self._lock.close()

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none.

        Raises:
            InputError: it cannot be read.
        """
        with _readable(self.path / name), suppress(FileNotFoundError):
            return (self.path / name).read_bytes()
        return None

    def write(self, name: str, content: bytes) -> None:
        """Put `content` in the place of a file. When this returns it is on the disk.

        Raises:
            NotStored: it could not be written; the file is as it was.
            NotReady: the directory is closed.
        """
        with self._one_writer:
            if self._lock.closed:
                raise NotReady("The service is stopping.")
            target, aside = self.path / name, self.path / f"{name}{PARTIAL}"
            with _writable(target):
                before = target.read_bytes() if target.exists() else None
                try:
                    _write_aside(aside, content)
                    aside.replace(target)
                    sync(self.path)
                except OSError:
                    with suppress(OSError):
                        _take_back(target, aside, before)
                    raise


def _write_aside(aside: Path, content: bytes) -> None:
    with aside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _take_back(target: Path, aside: Path, before: bytes | None) -> None:
    """Make a refused change absent after a restart too, where it failed as late as the sync of the directory."""
    aside.unlink(missing_ok=True)
    if before is None:
        target.unlink(missing_ok=True)
    elif target.read_bytes() != before:
        aside.write_bytes(before)
        aside.replace(target)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the state directory cannot be used: {path}: {error.strerror or error}; mend that, "
            "or change GENREC_STATE_DIR."
        ) from error


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotStored(f"{target} cannot be written: {error.strerror or error}.") from error
