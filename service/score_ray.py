"""Shards of a scoring job, scored on the nodes of a Ray cluster.

The shards are a data set of Ray Data, which maps it to their records with a pool of workers: processes with a loaded
model, each of which reads, scores and commits one shard a call by the same steps as on one machine. Ray starts workers
where there is room, and gives the shard of one that died to another. Rows do not pass through Ray. Nothing of Ray is
imported before a cluster was joined, and PyTorch only by workers.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from genrec import errors
from genrec.errors import EngineError, GenrecError, InputError, one_line
from service.ray_cluster import RayCluster, Share
from service.score_commit import ASIDE, PartRecord, writing
from service.score_job import Job
from service.score_plan import ShardSpan
from service.score_task import ScoreTask
from service.score_workers import MAX_TRIES, Committed

if TYPE_CHECKING:
    from service.score_worker import ScoreWorker

_MAX_BLOCKS = 1000
"""Units that Ray hands out: it makes 1,000 in a second or two, and 10,000 in 18 s, before the first worker starts."""

_Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers on a cluster that was joined.

    Attributes:
        cluster: where.
        task: what they do, its device one that they have.
        share: what each takes of a node.
        most: how many there may be; None for as many as the cluster has room for.
    """

    cluster: RayCluster
    task: ScoreTask
    share: Share
    most: int | None

    @classmethod
    def of(cls, cluster: RayCluster, task: ScoreTask, most: int | None) -> Self:
        """One GPU each where the cluster has any and the task allows it, and as many CPUs as the task has threads.

        Raises:
            InputError: the device is one of a machine, not of a cluster.
        """
        if task.device not in ("auto", "cpu", "cuda"):
            raise InputError(
                f"--device {task.device} names a device of one machine; with --ray each worker gets a GPU of its own: "
                "give cuda."
            )
        on_gpu = task.device == "cuda" or (task.device == "auto" and cluster.num_gpus > 0)
        share = Share(cpus=task.threads, gpus=1 if on_gpu else 0)
        there = replace(
            task,
            device="cuda" if on_gpu else "cpu",
            bundle=task.bundle.absolute(),  # workers have another current directory
            source=replace(task.source, path=task.source.path.absolute()),
            output=task.output.absolute(),
        )
        return cls(cluster, there, share, most)

    def computed_with(self) -> Job:
        """See `Workers`. Asked of a worker: this machine may have no GPU, or another processor.

        Raises:
            InputError: the cluster has no room for one.
        """
        import ray

        self.cluster.room(self.share)
        asked = ray.remote(_computed_with).options(num_cpus=self.share.cpus, num_gpus=self.share.gpus)
        try:
            return _heard(ray.get(asked.remote(self.task)))
        except ray.exceptions.RayError as error:
            raise EngineError(f"no worker could load the bundle on the Ray cluster: {one_line(error)}.") from error

    def run(self, spans: Sequence[ShardSpan], committed: Committed) -> None:
        """See `Workers`."""
        from ray.data.exceptions import ExecutionTimeoutError, SystemException
        from ray.exceptions import RayError

        by_number = {span.number: span for span in spans}
        try:
            for row in self._records(spans) if spans else ():
                told = _heard(row["told"])
                committed(by_number[told["number"]], PartRecord(**told["record"]))
        except (RayError, SystemException, ExecutionTimeoutError) as error:
            raise EngineError(
                f"the Ray cluster could not finish ({one_line(error)}); start again to go on, finished parts are kept."
            ) from error

    def _records(self, spans: Sequence[ShardSpan]) -> Iterator[Mapping[str, str]]:
        import ray.data

        most = min(self.most or len(spans), len(spans))
        now = min(most, self.cluster.room(self.share))
        _be_quiet()
        shards = ray.data.from_items([asdict(span) for span in spans], override_num_blocks=min(len(spans), _MAX_BLOCKS))
        told = shards.map_batches(
            ShardScorer,
            fn_constructor_args=(self.task,),
            batch_size=1,
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus or None,
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=now, max_size=most),
        )
        yield from told.iter_rows()


class ShardScorer:
    """What Ray Data keeps in the process of each worker."""

    def __init__(self, task: ScoreTask) -> None:
        """Loads nothing yet: what a shard ends in can be told, a worker that does not start only in Ray's words."""
        self._task = task
        self._worker: ScoreWorker | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Score one shard, a batch of one row with the fields of a `ShardSpan`."""
        span = ShardSpan(**{name: int(column[0]) for name, column in batch.items()})
        return {"told": [_told(lambda: {"number": span.number, "record": asdict(self._score(span))})]}

    def _score(self, span: ShardSpan) -> PartRecord:
        self._begin_try(span)
        from service.score_worker import ScoreWorker

        self._worker = self._worker or ScoreWorker(self._task)
        return self._worker.score(span)

    def _begin_try(self, span: ShardSpan) -> None:
        """Leave a mark that outlives this process; Ray's own count is of calls, those that only waited included."""
        marks = [self._task.output / ASIDE / f"part-{span.number:05d}.try-{number}" for number in range(MAX_TRIES)]
        with writing(self._task.output):
            left = [mark for mark in marks if not mark.exists()]
            if not left:
                raise EngineError(
                    f"{span} ended their worker {MAX_TRIES} times, by using up its memory perhaps: give a smaller "
                    "--batch-size or --shard-rows. Finished parts are kept."
                )
            left[0].touch()


def _computed_with(task: ScoreTask) -> str:
    return _told(lambda: _made_with(task))


def _made_with(task: ScoreTask) -> _Plain:
    from service.score_worker import ScoreWorker

    with closing(ScoreWorker(task)) as worker:
        return dict(worker.computed_with)


def _told(work: Callable[[], _Plain]) -> str:
    """What work gives, or the error of ours that it ends in, as text: Ray would wrap that in a traceback of its own."""
    try:
        return json.dumps({"done": work()})
    except GenrecError as error:
        return json.dumps({"error": type(error).__name__, "sentence": str(error)})


def _heard(told: str) -> _Plain:
    """The other end of `_told`.

    Raises:
        GenrecError: the one that it was.
    """
    heard = json.loads(told)
    if "error" in heard:
        raise getattr(errors, heard["error"])(heard["sentence"])
    done: _Plain = heard["done"]
    return done


def _be_quiet() -> None:
    """Ray Data's progress is not ours, and its log file in Ray's session directory has all that it would print."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # a record comes as soon as it is there, not with all of its block
    context.max_consecutive_actor_init_deaths = MAX_TRIES
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
