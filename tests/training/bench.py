"""What tests of stages share: recipes from dicts, one stage run by itself, a progress that remembers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from training.progress import Advance
from training.recipe import Recipe
from training.stage import Stage, StageContext

TOY = {"dataset": "toy"}


class RememberingProgress:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda steps=1, note="": None


def recipe(prepare: Mapping[str, Any] = TOY, **sections: Any) -> Recipe:
    return Recipe.model_validate({"name": "test", "prepare": dict(prepare), **sections})


def run_stage(stage: Stage, recipe: Recipe, work: Path, progress: RememberingProgress | None = None) -> Path:
    """Run one stage into its directory, without the pipeline's bookkeeping."""
    output = work / stage.name
    output.mkdir(parents=True)
    inputs = {name: work / name for name in stage.needs}
    stage.run(StageContext(recipe, inputs, output, progress or RememberingProgress()))
    return output


def write_csv(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()
