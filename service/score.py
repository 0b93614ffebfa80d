"""`genrec score`: histories in, a directory of scored items out, finished however often it is killed.

Exit codes: 0 done, 3 done with bad rows, 65 input, bundle or output refused, 70 the engine failed, 75 another run
writes the output, 143 stopped by SIGTERM.
"""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.ray_cluster import joined
from service.score_commit import ASIDE, PartRecord, writing
from service.score_formats import format_of
from service.score_histories import write_histories
from service.score_input import check_columns
from service.score_output import MADE_INPUT, ScoreOutput, held
from service.score_plan import Plan, ShardSpan
from service.score_progress import Progress
from service.score_ray import RayWorkers
from service.score_task import Asked, ScoreTask
from service.score_workers import ThisProcess, Told, WorkerProcesses, Workers, worker_devices

BAD_ROWS = 3
TERMINATED = 143


def score(
    bundle: Annotated[Path, typer.Option(help="The bundle that answers, a directory.")],
    output: Annotated[Path, typer.Option(help="Where the parts go: a new directory, or an unfinished one.")],
    source: Annotated[
        Path | None, typer.Option("--input", help="Rows to score: a .jsonl, .csv or .parquet file.")
    ] = None,
    all_users: Annotated[
        bool, typer.Option("--all-users", help="Score every user of the file --from instead.")
    ] = False,
    interactions: Annotated[
        Path | None, typer.Option("--from", help="Interactions: .parquet or .csv of user_id, item_id, timestamp.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Items a row, where the row does not say.")] = 10,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beam width. [the larger of the bundle's and k]")] = None,
    exclude_history: Annotated[
        bool | None, typer.Option("--exclude-history/--no-exclude-history", help="[as the bundle says]")
    ] = None,
    prove_exact: Annotated[
        bool, typer.Option("--prove-exact", help="Search until an answer is proven, where the row does not say.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto or an engine's name.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. [one a GPU, or one a core]")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Score on a Ray cluster: HOST:PORT of its head node, or local.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the model on a CPU, for each worker.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows given to the model at once.")] = 32,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows a part.")] = 1000,
    output_format: Annotated[Literal["parquet", "jsonl"], typer.Option("--format", help="Of the parts.")] = "parquet",
    errors: Annotated[
        Literal["keep", "stop"], typer.Option(help="A bad row: keep its error in its place, or stop at it.")
    ] = "keep",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output of another job.")] = False,
) -> None:
    """Score a file of histories, or all users of a file of interactions. Started again after a kill it goes on."""
    given = _given(source, all_users, interactions)
    if all_users:
        format_of(given)
    else:
        check_columns(given)  # first: a refused file leaves no output directory
    with _until_sigterm(), held(output):
        file = _made_input(output, given) if all_users else given
        plan = Plan.of(file, shard_rows)
        task = ScoreTask(
            bundle=bundle,
            device=device,
            dtype=dtype,
            engine=engine,
            threads=threads,
            source=replace(plan.source, path=output / MADE_INPUT) if all_users else plan.source,
            output=output,
            part_format=output_format,
            asked=Asked(k, num_beams, exclude_history, prove_exact),
            batch_size=batch_size,
            shard_rows=shard_rows,
            errors=errors,
        )
        progress = Progress(_say)
        with _workers(ray, task, workers, len(plan.spans), progress.tell) as made:
            into = ScoreOutput.open(output, {**task.settings, **made.computed_with()}, overwrite=overwrite)
            if not into.finished:
                _finish(into, plan, task, made, progress)
        bad = f", {into.num_bad_rows:,} of them bad: see the column error" if into.num_bad_rows else ""
        _say(f"{output} is finished: {into.num_rows:,} rows in {len(into.committed):,} parts{bad}.")
    if into.num_bad_rows:
        raise typer.Exit(BAD_ROWS)


def _given(source: Path | None, all_users: bool, interactions: Path | None) -> Path:
    if all_users and interactions is not None and source is None:
        return interactions
    if source is not None and not all_users and interactions is None:
        return source
    raise typer.BadParameter("give either --input FILE, or --all-users --from FILE.")


def _made_input(output: Path, interactions: Path) -> Path:
    """The histories of all users as rows, aside: whose job they are, is not known yet."""
    rows = output / ASIDE / MADE_INPUT
    with writing(output):
        write_histories(interactions, rows)
    return rows


@contextmanager
def _workers(ray: str | None, task: ScoreTask, most: int | None, shards: int, told: Told) -> Iterator[Workers]:
    if ray is not None:
        with joined(ray) as cluster:
            yield RayWorkers.of(cluster, task, most)
        return
    if shards <= 1 or most == 1:
        with closing(ThisProcess(task, told)) as here:
            yield here
    else:
        with closing(WorkerProcesses(task, worker_devices(task.device, most)[:shards], told)) as processes:
            yield processes


def _finish(into: ScoreOutput, plan: Plan, task: ScoreTask, workers: Workers, progress: Progress) -> None:
    """Have the missing shards scored, and declare the job done."""

    def committed(span: ShardSpan, record: PartRecord) -> None:
        into.committed[span.number] = record
        progress.tell(span.number, span.num_rows)

    into.reopen()
    if plan.source.path != task.source.path:
        into.take_input(plan.source.path)
    if into.committed:
        _say(f"going on: {into.num_rows:,} rows are there already, in {len(into.committed):,} parts.")
    progress.begin(plan.num_rows, into.num_rows)
    workers.run(into.missing(plan), committed)
    task.source.check_unchanged()
    into.finish(plan)


class _Terminated(BaseException):
    """SIGTERM came. No Exception, so that nothing takes it for the engine's failure."""


@contextmanager
def _until_sigterm() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except _Terminated:
        _say("stopped by SIGTERM; start it again to go on, finished parts are kept.")
        raise typer.Exit(TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _say(line: str) -> None:
    typer.echo(f"genrec score: {line}", err=True)
