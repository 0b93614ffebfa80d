"""`genrec score` in processes of its own, which can be killed: forked from one that has imported everything once.

Their workers are forked from that one too, by the same lines as always.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from service import score_preload  # noqa: F401  (imported before the fork, as it takes seconds)
from tests import fakes  # noqa: F401

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "service.score"])


@dataclass(frozen=True)
class Scoring:
    """A running command."""

    process: BaseProcess
    log: Path
    output: Path

    @classmethod
    def start(cls, bundle: Path, source: Path, output: Path, *flags: str, log: Path | None = None) -> "Scoring":
        arguments = ("score", "--bundle", str(bundle), "--input", str(source), "--output", str(output), *flags)
        log = log or output.with_suffix(".log")
        log.unlink(missing_ok=True)
        process = _CONTEXT.Process(target=_run, args=(arguments, str(log)))
        process.start()
        return cls(process, log, output)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def workers(self) -> list[int]:
        """The processes that work in the output, and are not the driver."""
        return [pid for pid in workers_in(self.output) if pid != self.pid]

    def end(self, timeout: float = 90) -> int:
        """Its exit code; -9 if it was killed."""
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, f"still running after {timeout} s: {self.said}"
        return code

    def kill_all(self) -> None:
        """As `kill -9` of a whole process group."""
        for pid in (self.pid, *self.workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end()


def workers_in(output: Path) -> list[int]:
    """The processes that hold an output directory's file of workers open."""
    held = str(output / ".workers")
    # os, not pathlib, which takes its time: this is asked often
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and held in _open_files(pid)]  # noqa: PTH208


def _open_files(pid: str) -> Iterator[str]:
    """What a process holds open; a file that it closes meanwhile, or its end, hides no other file."""
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{fd}")  # noqa: PTH115


def parts(output: Path) -> int:
    """How many are committed."""
    return len(list(output.glob("_commits/part-*.json")))


def until(reached: Callable[[], object], timeout: float = 90) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < end, "it was never so"
        time.sleep(0.002)


def _run(arguments: tuple[str, ...], log: str) -> None:
    from genrec.commands import main

    # Python 3.11 would have it make a server of its own, which imports everything again.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    main(arguments)
    sys.exit(0)
