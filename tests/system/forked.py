"""Services in processes of their own, forked from one that has imported everything once: 0.2 s to start one, and not 7.

Signals, kills, exit codes and memory are a real process's. What a user starts is an interpreter that imports everything
itself; tests/service/test_commands.py starts that one.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

import service.process  # noqa: F401  (imported before the fork, as it takes seconds)
from genrec.commands import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "tests.system.faulty_server"])


class Forked:
    """A process that calls a function and ends; as `subprocess.Popen` in what it has of it."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @classmethod
    def start(
        cls,
        function: Callable[[Sequence[str]], None],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
    ) -> "Forked":
        """Returns at once.

        Args:
            function: of a module, so that the other process finds it by name.
            arguments: for it.
            environment: its whole environment.
            log: where stdout and stderr go.
        """
        log.write_bytes(b"")  # there from the first moment, as a shell would have it
        process = _CONTEXT.Process(target=_run, args=(function, list(arguments), dict(environment), str(log)))
        process.start()
        return cls(process)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or the negative signal, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # its end is known to the fork server first
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def genrec(arguments: Sequence[str]) -> None:
    """The command line."""
    main(arguments)


def _run(
    function: Callable[[Sequence[str]], None], arguments: Sequence[str], environment: Mapping[str, str], log: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))  # which PyTorch read before the fork
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    function(arguments)
    sys.exit(0)
