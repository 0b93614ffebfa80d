"""A month after a run: more interactions, three more items, one fewer; and what is trained on them."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tests.training.bench import RememberingProgress
from tests.training.runs import SHORT, Run, ran
from training.pipeline import run_pipeline
from training.recipe import Recipe, load_recipe
from training.refit import run_refit
from training.stages import stages_of

NEW = ("zz-1", "zz-2", "zz-3")
GONE = "co05"
TWIN = "zz-3"
"""It has the very text of `zz-2`."""

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Later:
    """A run that goes on from a bundle, or what became of one."""

    recipe: Recipe
    work: Path
    lines: list[str]

    @property
    def bundle(self) -> Path:
        return self.work / "seal" / "bundle"

    def again(self, until: str | None = None) -> list[str]:
        progress = RememberingProgress()
        run_pipeline(stages_of(self.recipe), self.recipe, self.work, progress, until)
        return ran(progress.lines)


def new_items() -> pl.DataFrame:
    """What `genrec items add` could be given."""
    return pl.DataFrame(
        {
            "item_id": list(NEW),
            "title": ["Comedy number 77", "Drama number 78", "Drama number 78"],
            "year": [1999, 2001, 2001],
            "genres": [["Comedy"], ["Drama"], ["Drama"]],
        }
    )


def month_later(run: Run, folder: Path) -> tuple[str, ...]:
    """Write the data; overrides that let a recipe read them."""
    prepare = run.work / "prepare"
    columns = ["user_id", "item_id", "timestamp"]
    before = pl.read_parquet(prepare / "interactions.parquet")
    newest = int(before["timestamp"].max())
    first = before.filter(pl.col("position") < 2)
    later = first.select(
        "user_id",
        pl.when(pl.col("position") == 1).then(pl.lit(NEW[0])).otherwise(pl.lit(NEW[1])).alias("item_id"),
        pl.lit(newest, pl.Int64).add(DAY_MS * (1 + pl.col("position").cast(pl.Int64))).alias("timestamp"),
    )
    once = later.head(1).with_columns(pl.lit(TWIN).alias("item_id"), pl.col("timestamp") + 5 * DAY_MS)
    files = {"interactions": folder / "interactions.csv", "items": folder / "items.parquet"}
    folder.mkdir(parents=True, exist_ok=True)
    all_of_them = pl.concat([before.select(columns), later.select(columns), once.select(columns)])
    all_of_them.filter(pl.col("item_id") != GONE).write_csv(files["interactions"])
    items = pl.concat([pl.read_parquet(prepare / "items.parquet"), new_items()])
    items.filter(pl.col("item_id") != GONE).write_parquet(files["items"])
    paths = {name: f'{name} = {{path = "{file}"}}' for name, file in files.items()}
    return (f"prepare={{{', '.join(paths.values())}}}",)


def go_on(run: Run, base: Path, work: Path, *overrides: str) -> Later:
    """Train on the data of `run` a month later, from a bundle."""
    name = {"seq2seq": "tiny-t5", "causal": "tiny-causal"}[run.architecture]
    base_override = f'base.bundle="{base}"'
    recipe = load_recipe(
        name, (*SHORT, *month_later(run, work.with_name(work.name + "-data")), base_override, *overrides)
    )
    progress = RememberingProgress()
    run_pipeline(stages_of(recipe), recipe, work, progress)
    return Later(recipe, work, progress.lines)


def refit(run: Run, work: Path) -> Later:
    """Refit a copy of a run."""
    measured = run.copy(work)
    progress = RememberingProgress()
    run_refit(run.recipe(), measured.work, progress)
    return Later(run.recipe(), work / "refit", progress.lines)
