"""What a worker is told: plain data, for whoever plans, hands out and does the work. Knows no model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from service.score_job import Job
from service.score_plan import Source


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every row that does not say it itself; None leaves it to the bundle."""

    k: int
    num_beams: int | None
    exclude_history: bool | None
    prove_exact: bool


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """All that a worker is told. Plain data.

    Attributes:
        bundle: the directory that is loaded.
        device, dtype, engine: as `Recommender.load` takes them.
        threads: of the arithmetic on a CPU.
        source: the rows.
        output: the output directory.
        part_format: of the parts, parquet or jsonl.
        asked: for rows that do not say.
        batch_size: rows given to the model at once.
        shard_rows: rows in a shard but the last.
        errors: whether a bad row keeps its error in its place, or ends the job.
    """

    bundle: Path
    device: str
    dtype: str
    engine: str
    threads: int
    source: Source
    output: Path
    part_format: str
    asked: Asked
    batch_size: int
    shard_rows: int
    errors: Literal["keep", "stop"]

    @property
    def settings(self) -> Job:
        """What the bytes of the parts depend on and every worker is told."""
        return {
            "input_sha256": self.source.sha256,
            **asdict(self.asked),
            "batch_size": self.batch_size,
            "shard_rows": self.shard_rows,
            "output_format": self.part_format,
            "threads": self.threads,
        }
