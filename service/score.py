"""`genrec score`: a file of histories in, a directory of scored items out, finished however often it is killed.

Exit codes: 0 done, 3 done with bad rows, 65 input, bundle or output refused, 70 the engine failed, 75 another run
writes the output, 143 stopped by SIGTERM.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

import torch
import typer

from genrec.bundle.layout import sha256_of
from genrec.errors import DataError
from genrec.recommender import Recommender
from genrec.requests import Request
from service.score_input import RowParser, ScoreInput, Shard
from service.score_output import Job, ScoreOutput, held
from service.score_part import ScoredRow
from service.score_run import run, score_rows

BAD_ROWS = 3
TERMINATED = 143
PROGRESS_S = 5.0


def score(
    bundle: Annotated[Path, typer.Option(help="The bundle that answers, a directory.")],
    source: Annotated[Path, typer.Option("--input", help="Rows to score: a .jsonl, .csv or .parquet file.")],
    output: Annotated[Path, typer.Option(help="Where the parts go: a new directory, or an unfinished one.")],
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
    batch_size: Annotated[int, typer.Option(min=1, help="Rows given to the model at once.")] = 32,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows a part.")] = 1000,
    output_format: Annotated[Literal["parquet", "jsonl"], typer.Option("--format", help="Of the parts.")] = "parquet",
    errors: Annotated[
        Literal["keep", "stop"], typer.Option(help="A bad row: keep its error in its place, or stop at it.")
    ] = "keep",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output of another job.")] = False,
) -> None:
    """Score a file of histories. Started again after a kill it goes on where it was."""
    asked = {"k": k, "num_beams": num_beams, "exclude_history": exclude_history, "prove_exact": prove_exact}
    with _until_sigterm(), held(output):
        rows = ScoreInput(source, shard_rows)
        stamp = _stamp(source)
        recommender = Recommender.load(bundle, device=device, dtype=dtype, engine=engine)
        recommender.validate(Request((), k=k, num_beams=num_beams))
        job = {
            "input_sha256": sha256_of(source),
            **asked,
            "batch_size": batch_size,
            "shard_rows": shard_rows,
            "output_format": output_format,
            **_computed_with(recommender),
        }
        into = ScoreOutput.open(output, job, overwrite=overwrite)
        if not into.finished:
            parse = RowParser({name: value for name, value in asked.items() if value is not None}, recommender.validate)
            into.reopen()
            if into.committed:
                _say(f"going on: {into.num_rows:,} rows are there already, in {len(into.committed):,} parts.")
            shards = rows.shards(parse, frozenset(into.committed))
            run(shards, _scorer(recommender, batch_size, source if errors == "stop" else None), into.commit)
            if _stamp(source) != stamp:
                raise DataError(f"{source} was changed while it was read; start again with --overwrite.")
            into.finish(rows.num_shards, rows.num_rows)
        into.tidy()
        bad = f", {into.num_bad_rows:,} of them bad: see the column error" if into.num_bad_rows else ""
        _say(f"{output} is finished: {into.num_rows:,} rows in {len(into.committed):,} parts{bad}.")
    if into.num_bad_rows:
        raise typer.Exit(BAD_ROWS)


def _computed_with(recommender: Recommender) -> Job:
    """What the last digits of a score depend on, beside the bundle and the batches."""
    device = torch.device(recommender.device)
    on_gpu = device.type == "cuda"
    manifest = recommender.bundle.manifest
    return {
        "bundle": f"{manifest.name} {manifest.version}",
        "engine": recommender.engine_name,
        "dtype": recommender.dtype,
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **{f"{name}_version": version(name) for name in ("genrec", "torch", "transformers", "pyarrow")},
    }


def _scorer(recommender: Recommender, batch_size: int, strict: Path | None) -> Callable[[Shard], list[ScoredRow]]:
    """What scores a shard and says how far it is; with `strict`, the input, the first bad row ends the job."""
    progress = _Progress()

    def scorer(shard: Shard) -> list[ScoredRow]:
        scored = score_rows(recommender, shard.rows, batch_size, lambda done: progress.tell(shard, done))
        for place, row in enumerate(scored):
            if strict and row.error is not None:
                raise DataError(f"{strict}, row {shard.first_row + place + 1}: {row.error}")
        return scored

    return scorer


class _Progress:
    """A line now and then: rows, rows/s since the start, time left."""

    def __init__(self) -> None:
        self._begin = self._told = monotonic()
        self._rows = 0
        self._of_shard: tuple[int, int] = (-1, 0)

    def tell(self, shard: Shard, done: int) -> None:
        """Told after each batch: `done` rows of `shard` are scored."""
        number, before = self._of_shard
        self._rows += done - (before if number == shard.number else 0)
        self._of_shard = (shard.number, done)
        now = monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        rate = self._rows / (now - self._begin)
        in_all = (shard.first_row + len(shard.rows)) / shard.fraction
        left = timedelta(seconds=round((in_all - shard.first_row - done) / rate))
        _say(f"{shard.first_row + done:,} of about {in_all:,.0f} rows, {rate:.1f} rows/s, {left} left")


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


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _say(line: str) -> None:
    typer.echo(f"genrec score: {line}", err=True)
