"""A worker: loads the bundle once, then scores and commits one shard after another.

All it needs is plain data and the file system, so it may be this process, another one, or one on another machine. Knows
nothing of other workers.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version

import torch

from genrec.decoding.threads import use_threads
from genrec.errors import DataError
from genrec.recommender import Recommender
from genrec.requests import Request
from service.score_batches import score_rows
from service.score_commit import Commits, PartRecord
from service.score_formats import RowFile, open_rows
from service.score_input import Row, RowParser
from service.score_job import Job, check_job
from service.score_output import worked_in
from service.score_part import ScoredRow
from service.score_plan import ShardSpan
from service.score_task import ScoreTask

LIBRARIES = ("genrec", "torch", "transformers", "pyarrow")


class ScoreWorker:
    """Scores shards of a task. Until it is closed, or its process ends, no other run is given the output directory.

    Attributes:
        computed_with: what the bytes of its parts depend on beside the task's settings: bundle, hardware, versions.
    """

    def __init__(self, task: ScoreTask) -> None:
        """Loads the bundle; the input is opened when the first shard is scored.

        Raises:
            BundleError: the bundle is refused.
            InputError: device, dtype, engine or the output directory cannot be had.
            RequestError: the bundle does not give what is asked of every row.
        """
        self._held = ExitStack()
        self._held.enter_context(worked_in(task.output))
        use_threads(task.threads)
        self._task = task
        self._recommender = Recommender.load(task.bundle, device=task.device, dtype=task.dtype, engine=task.engine)
        asked = task.asked
        self._recommender.validate(Request((), k=asked.k, num_beams=asked.num_beams))
        defaults = {name: value for name, value in asdict(asked).items() if value is not None}
        self._parse = RowParser(defaults, self._recommender.validate)
        self._rows: RowFile | None = None
        self.computed_with: Job = _computed_with(self._recommender)
        self._job = {**task.settings, **self.computed_with}
        self._commits = Commits(task.output, self._job)

    def score(self, span: ShardSpan, told: Callable[[int], None] = lambda done: None) -> PartRecord:
        """Score a shard and commit its part.

        Args:
            span: which.
            told: after each batch, how many of its rows are done.

        Returns:
            The record that counts, of another attempt if that was committed before.

        Raises:
            DataError: the input was changed, or a row is bad and the task says to stop.
            EngineError: the engine answers nothing any more.
            InputError: the output directory is not this job's, or cannot be written in.
        """
        scored = score_rows(self._recommender, self._read(span), self._task.batch_size, told)
        if self._task.errors == "stop":
            self._stop_at_bad(span, scored)
        return self._commits.commit(span.number, scored)

    def close(self) -> None:
        """Let the input and the output directory go."""
        self._held.close()

    def _read(self, span: ShardSpan) -> list[Row]:
        if self._rows is None:
            check_job(self._task.output, self._job)
            self._rows = self._held.enter_context(open_rows(self._task.source.path))
        raws = self._rows.read(span.start, span.num_rows)
        self._task.source.check_unchanged()
        return [self._parse(raw) for raw in raws]

    def _stop_at_bad(self, span: ShardSpan, scored: list[ScoredRow]) -> None:
        for place, row in enumerate(scored):
            if row.error is not None:
                raise DataError(f"{self._task.source.path}, row {span.first_row + place + 1}: {row.error}")


def _computed_with(recommender: Recommender) -> Job:
    device = torch.device(recommender.device)
    on_gpu = device.type == "cuda"
    manifest = recommender.bundle.manifest
    return {
        "bundle": f"{manifest.name} {manifest.version}",
        "engine": recommender.engine_name,
        "dtype": recommender.dtype,
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        **{f"{name}_version": version(name) for name in LIBRARIES},
    }
