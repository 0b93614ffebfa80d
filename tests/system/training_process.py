"""Training in processes of its own, which can be killed: forked from one that has imported everything once."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from training import stages  # noqa: F401  (imported before the fork, as it takes seconds)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Training:
    """A process that runs a command of `genrec`."""

    process: BaseProcess
    log: Path

    @classmethod
    def start(cls, log: Path, *arguments: str, limit_bytes: int | None = None) -> "Training":
        process = _CONTEXT.Process(target=_run, args=(arguments, str(log), limit_bytes))
        process.start()
        return cls(process, log)

    def end(self, timeout: float = 60) -> int:
        """Its exit code; -9 if it was killed."""
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, f"still running after {timeout} s: {self.said}"
        return code

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def signal_when(self, reached: Callable[[], bool], number: int, timeout: float = 60) -> int:
        """Send the signal as soon as something is so; the exit code."""
        until = time.monotonic() + timeout
        while not reached():
            assert self.process.is_alive() and time.monotonic() < until, self.said
            time.sleep(0.001)
        os.kill(self.process.pid, number)
        return self.end()


def _run(arguments: tuple[str, ...], log: str, limit_bytes: int | None) -> None:
    from genrec.commands import main

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    torch.set_num_threads(1)
    if limit_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    main(arguments)
    sys.exit(0)
