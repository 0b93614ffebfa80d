"""Many workers on one machine: processes that are given shards, and replaced when they die.

Knows neither what a worker does with a shard nor what the output is. Only workers import PyTorch: in the process that
drives them it would take as much memory as one of them.
"""

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Protocol, Self

from genrec.errors import EngineError, GenrecError
from service.score_commit import PartRecord
from service.score_job import Job
from service.score_plan import ShardSpan
from service.score_task import ScoreTask

MAX_TRIES = 3
"""Workers that may die at one shard, or before their first: then it is not chance."""

Committed = Callable[[ShardSpan, PartRecord], None]
Told = Callable[[int, int], None]
"""Of a shard, by its number, so many rows are done."""


class Workers(Protocol):
    """Whoever scores shards: this process, processes of this machine, a cluster."""

    def computed_with(self) -> Job:
        """What the bytes of parts depend on beside the task's settings.

        Raises:
            GenrecError: a worker cannot be made of the task.
        """

    def run(self, spans: Sequence[ShardSpan], committed: Committed) -> None:
        """Score and commit these shards, in any order.

        Args:
            spans: which.
            committed: told of each when it is.

        Raises:
            GenrecError: a worker's, the first one's; what was committed stays.
        """


class ThisProcess:
    """One worker, here."""

    def __init__(self, task: ScoreTask, told: Told) -> None:
        from service.score_worker import ScoreWorker

        self._told = told
        self._worker = ScoreWorker(task)

    def close(self) -> None:
        """Let the output directory go."""
        self._worker.close()

    def computed_with(self) -> Job:
        """See `Workers`."""
        return self._worker.computed_with

    def run(self, spans: Sequence[ShardSpan], committed: Committed) -> None:
        """See `Workers`."""
        for span in spans:
            committed(span, self._worker.score(span, partial(self._told, span.number)))


@dataclass(frozen=True, slots=True)
class _Rows:
    """A worker's word that so many rows of its shard are done."""

    done: int


_Said = dict[str, str | int | bool | None] | _Rows | PartRecord | GenrecError
"""What a worker says: first what it computes with, then rows and the record of each shard, or last what went wrong."""


@dataclass(slots=True)
class _Worker:
    """A worker's process, seen from here."""

    task: ScoreTask
    process: BaseProcess
    line: Connection
    ready: bool = False
    span: ShardSpan | None = None

    @classmethod
    def start(cls, task: ScoreTask) -> Self:
        context = _context(task.device)
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(task, there), daemon=True)
        process.start()
        there.close()
        return cls(task, process, here)

    def give(self, span: ShardSpan) -> None:
        self.span = span
        with suppress(OSError):  # it is dead: its line says so next
            self.line.send(span)

    def hear(self) -> _Said | None:
        """None is the end of the process."""
        try:
            said: _Said = self.line.recv()
        except (EOFError, OSError):
            return None
        return said

    def end(self) -> None:
        self.process.kill()  # what it has not committed is not there, and what it has is
        self.process.join()
        self.line.close()

    @property
    def how_it_ended(self) -> str:
        code = self.process.exitcode or 0
        return f"by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"with exit code {code}"


class WorkerProcesses:
    """A process for each device. One that dies is replaced and its shard given to another.

    They end within moments of this process, however that ends.
    """

    def __init__(self, task: ScoreTask, devices: Sequence[str], told: Told) -> None:
        """Start them.

        Args:
            task: of all.
            devices: of each, such as cpu or cuda:1.
            told: of every batch.
        """
        self._told = told
        self._deaths: Counter[ShardSpan | None] = Counter()
        self._waiting: deque[ShardSpan] = deque()
        self._computed_with: Job | None = None
        self._workers = [_Worker.start(replace(task, device=device)) for device in devices]

    def close(self) -> None:
        """End them."""
        for worker in self._workers:
            worker.end()

    def computed_with(self) -> Job:
        """See `Workers`."""
        while self._computed_with is None:
            for worker, said in self._heard():
                self._take(worker, said)
        return self._computed_with

    def run(self, spans: Sequence[ShardSpan], committed: Committed) -> None:
        """See `Workers`.

        Raises:
            EngineError: workers died at the same shard `MAX_TRIES` times, or before their first one.
        """
        self._waiting.extend(spans)
        left = len(spans)
        self._hand_out()
        while left:
            for worker, said in self._heard():
                if isinstance(said, PartRecord) and worker.span is not None:
                    span, worker.span = worker.span, None
                    committed(span, said)
                    left -= 1
                else:
                    self._take(worker, said)
            self._hand_out()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.span is None and self._waiting:
                worker.give(self._waiting.popleft())

    def _heard(self) -> Iterator[tuple[_Worker, _Said | None]]:
        lines = {worker.line: worker for worker in self._workers}
        for line in wait(list(lines)):
            worker = lines[line]  # type: ignore[index]  # only lines were waited for
            yield worker, worker.hear()

    def _take(self, worker: _Worker, said: _Said | None) -> None:
        match said:
            case None:
                self._replace(worker)
            case GenrecError():
                raise said
            case _Rows(done) if worker.span is not None:
                self._told(worker.span.number, done)
            case dict():
                worker.ready = True
                self._computed_with = self._computed_with or said

    def _replace(self, dead: _Worker) -> None:
        dead.end()
        self._deaths[dead.span] += 1
        if self._deaths[dead.span] == MAX_TRIES:
            at = f"at {dead.span}" if dead.span else "before its first row"
            raise EngineError(
                f"a worker ended {at}, {dead.how_it_ended}, {MAX_TRIES} times; memory may be short: give fewer "
                "--workers or a smaller --batch-size and start again, finished parts are kept."
            )
        if dead.span is not None:
            self._waiting.appendleft(dead.span)
        self._workers[self._workers.index(dead)] = _Worker.start(dead.task)


def worker_devices(device: str, workers: int | None) -> list[str]:
    """A device for each worker.

    Where nothing is said that is one for each GPU, or for each core: threads of one worker wait for each other. On two
    cores, shared with other work, the demo bundle answered 370 to 510 rows/s in two workers with a thread each, 155 to
    160 in one with two threads. Which GPUs there are, a process is asked that then ends.

    Args:
        device: as `Recommender.load` takes it; of several GPUs `auto` and `cuda` take all, `cuda:N` takes one.
        workers: how many; None for as many as make sense.

    Raises:
        InputError: there is no such device.
    """
    with ProcessPoolExecutor(1, _context("cpu"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as asked:
        return asked.submit(_worker_devices, device, workers).result()


def _worker_devices(device: str, workers: int | None) -> list[str]:
    import torch

    from genrec.models import resolve_device

    device = resolve_device(device)
    if device == "cpu":
        return ["cpu"] * (workers or len(os.sched_getaffinity(0)))
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]
    return [gpus[number % len(gpus)] for number in range(workers or len(gpus))]


def _context(device: str) -> ForkServerContext | SpawnContext:
    """How processes begin: forked in milliseconds by one that has imported PyTorch and done nothing else.

    For GPUs each begins anew: should an import have touched CUDA, a fork could not use it.
    """
    if device != "cpu":
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(["service.score_preload"])
    return multiprocessing.get_context("forkserver")


def _work(task: ScoreTask, line: Connection) -> None:
    """What the process of a worker does."""
    from service.score_worker import ScoreWorker

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them, and the driver answers it
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        worker = ScoreWorker(task)
        line.send(dict(worker.computed_with))
        while True:
            line.send(worker.score(line.recv(), lambda done: line.send(_Rows(done))))
    except GenrecError as error:
        line.send(error)
    except (EOFError, BrokenPipeError):
        pass  # the driver is gone


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
