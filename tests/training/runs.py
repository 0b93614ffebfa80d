"""A whole training run in some seconds, made once a session and copied by tests that change something."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.training.bench import RememberingProgress
from training.corpus import Corpus
from training.pipeline import run_pipeline
from training.recipe import Recipe, load_recipe
from training.stage import Stage, StageContext
from training.stages import STAGES

SHORT = (
    "pretrain.training_arguments.num_train_epochs=1",
    "pretrain.training_arguments.per_device_train_batch_size=64",
    "finetune.training_arguments.num_train_epochs=2",
    "finetune.training_arguments.per_device_train_batch_size=120",
    "pretrain.training_arguments.logging_steps=1",
    "finetune.training_arguments.logging_steps=1",
    "pretrain.recall_users=10",
    "finetune.recall_users=10",
    "prompt.max_history_items=8",
    "evaluate.num_users=40",
    "evaluate.bootstrap_samples=200",
    "bundle.golden_requests=4",
)


@dataclass(frozen=True)
class Run:
    """A work directory with every stage done."""

    architecture: str
    work: Path
    lines: tuple[str, ...]

    def recipe(self, *overrides: str) -> Recipe:
        return short_recipe(self.architecture, *overrides)

    @property
    def bundle(self) -> Path:
        return self.work / "seal" / "bundle"

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.work / "evaluate" / "metrics.json").read_text())

    def corpus(self) -> Corpus:
        return Corpus.load({stage.name: self.work / stage.name for stage in STAGES}, self.recipe())

    def copy(self, target: Path, until: str = "seal") -> "Run":
        """A copy of the stages up to one, whose results the pipeline still trusts."""
        for stage in STAGES:
            shutil.copytree(self.work / stage.name, target / stage.name)
            if stage.name == until:
                break
        return Run(self.architecture, target, ())

    def again(self, *overrides: str, until: str | None = None) -> list[str]:
        """Run the pipeline over it; the stages that were not skipped."""
        progress = RememberingProgress()
        run_pipeline(STAGES, self.recipe(*overrides), self.work, progress, until)
        return ran(progress.lines)

    def stage(self, stage: Stage, output: Path, *overrides: str) -> RememberingProgress:
        """Run one stage alone on what is there, into an empty directory of the test's own."""
        progress = RememberingProgress()
        output.mkdir(parents=True, exist_ok=True)
        inputs = {name: self.work / name for name in stage.needs}
        stage.run(StageContext(self.recipe(*overrides), inputs, output, progress))
        return progress


def short_recipe(architecture: str, *overrides: str) -> Recipe:
    return load_recipe({"seq2seq": "tiny-t5", "causal": "tiny-causal"}[architecture], (*SHORT, *overrides))


def ran(lines: list[str]) -> list[str]:
    """Names of the stages that the display says were done."""
    return [
        line.split("] ")[1].split(":")[0] for line in lines if line.startswith("[") and "]" in line and "done" in line
    ]


def train(architecture: str, work: Path) -> Run:
    progress = RememberingProgress()
    run_pipeline(STAGES, short_recipe(architecture), work, progress)
    return Run(architecture, work, tuple(progress.lines))
