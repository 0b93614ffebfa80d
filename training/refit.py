"""Training once more on all interactions, test included, for the bundle that ships.

A run that holds nothing out has nothing to stop by and nothing to be measured on. So it follows another, the measured
run, which held validation and test out: the same semantic IDs and the same first weights, as many epochs as were best
there, and its metrics. Knows the work directory of the measured run.
"""

import dataclasses
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from genrec.bundle import Manifest, layout
from genrec.bundle.manifest import read_sealed_manifest
from genrec.errors import DataError, RecipeError
from training import seal
from training.evaluate import METRICS
from training.fit_report import read_best_epoch
from training.pipeline import RECORD, locked, read_record, run_pipeline
from training.processes import is_main
from training.progress import Progress
from training.recipe import Recipe
from training.recipe_model import Fitting
from training.seen import REFIT
from training.stage import Stage, StageContext
from training.stages import stages_of

TAKEN = {"embed", "quantize", "vocabulary", "baselines", "evaluate", "churn"}
"""Stages whose results are those of the measured run."""

_BUNDLE = Path("seal") / seal.BUNDLE
F = TypeVar("F", bound=Fitting)


def check_refit(recipe: Recipe) -> None:
    """Refuse a recipe whose measured run does not say how long to train.

    Raises:
        RecipeError: It holds nothing out, or merges another moment than the best.
    """
    if recipe.prepare.split == "none":
        raise RecipeError(
            'prepare.split = "none" holds nothing out, so nothing could be measured; take another split, and --refit '
            "for a bundle that is then trained on all interactions."
        )
    if recipe.merge.checkpoint != "best":
        raise RecipeError(
            f"merge.checkpoint = {recipe.merge.checkpoint!r} is a moment of one run; --refit trains as long as was "
            'best on validation, so leave it at "best".'
        )


def run_refit(recipe: Recipe, measured: Path, progress: Progress) -> None:
    """Bring the second run up to date, in a directory within that of the first, which is locked meanwhile.

    Args:
        recipe: Of the measured run.
        measured: Its work directory, every stage done.
        progress: The display.

    Raises:
        LockedError: Another run has begun in the work directory.
        DataError: The measured run does not say when its weights were best.
    """
    with locked(measured) if is_main() else nullcontext():
        whole = refit_recipe(recipe, measured)
        progress.say(f"refit: on all interactions, {_epochs(whole)}; nothing is measured")
        run_pipeline(refit_stages(recipe, measured), whole, measured / REFIT, progress)


def refit_recipe(recipe: Recipe, measured: Path) -> Recipe:
    """The same recipe without a split, each fitting as long as was best in the measured run.

    Args:
        recipe: Of the measured run.
        measured: Its work directory, every stage done.

    Raises:
        DataError: The measured run does not say when its weights were best.
    """
    whole = recipe.prepare.model_copy(update={"split": "none"})
    # The weights of a base bundle pass `pretrain` as they are.
    first = recipe.pretrain if recipe.base is None else None
    return recipe.model_copy(
        update={
            "prepare": whole,
            "pretrain": first and _stopped(first, measured / "pretrain"),
            "finetune": _stopped(recipe.finetune, measured / "finetune"),
        }
    )


def _stopped(fitting: F, measured: Path) -> F:
    """The same, as long as was best in a stage's result."""
    if fitting.stop_at_epoch is not None:
        return fitting
    epoch = read_best_epoch(measured)
    if epoch is None:
        raise DataError(f"{measured} does not say when its weights were best; remove it and run again.")
    return fitting.model_copy(update={"stop_at_epoch": epoch})


def refit_stages(recipe: Recipe, measured: Path) -> tuple[Stage, ...]:
    """The stages of the second run: item vectors, codes, tokens and all that was measured come from the first."""
    stages = stages_of(recipe)
    taken = (
        _metrics_taken(measured) if stage.name == "evaluate" else _taken(stage.name, measured)
        for stage in stages
        if stage.name in TAKEN
    )
    return (*taken, *(_knowing_the_measured(stage) for stage in stages if stage.name not in TAKEN))


def _epochs(recipe: Recipe) -> str:
    fittings = {"pretrain": recipe.pretrain, "finetune": recipe.finetune}
    return ", ".join(f"{name} {fitting.stop_at_epoch:g} epochs" for name, fitting in fittings.items() if fitting)


def whose_metrics(measured: Manifest) -> dict[str, str]:
    """What metrics.json of a refitted bundle says of the bundle that was measured."""
    return {
        "measured_version": measured.version,
        "note": (
            f"Measured on {measured.name} {measured.version}: the same recipe, trained without validation and test. "
            "This bundle was then trained on all interactions, test included, and was not measured: on what it has "
            "seen, no number would mean anything."
        ),
    }


def _knowing_the_measured(stage: Stage) -> Stage:
    return dataclasses.replace(stage, needs=(*stage.needs, "evaluate")) if stage.name == "assemble" else stage


def _taken(name: str, measured: Path) -> Stage:
    """A stage whose result is that of the measured run."""

    def run(context: StageContext) -> None:
        _take(measured / name, context.output)
        context.progress.say(f"{name}: taken from the measured run")

    return Stage(name=name, needs=(), section=lambda _: _content(measured, name), run=run)


def _metrics_taken(measured: Path) -> Stage:
    def run(context: StageContext) -> None:
        _take(measured / "evaluate", context.output)
        metrics = json.loads((context.output / METRICS).read_text(encoding="utf-8"))
        metrics[REFIT] = whose_metrics(read_sealed_manifest(measured / _BUNDLE))
        (context.output / METRICS).unlink()  # the name only: the file may be that of the measured run
        (context.output / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        context.progress.say(f"evaluate: {metrics[REFIT]['note']}")

    def section(_: Recipe) -> object:
        return [_content(measured, "evaluate"), read_sealed_manifest(measured / _BUNDLE).version]

    return Stage(name="evaluate", needs=(), section=section, run=run)


def _take(source: Path, target: Path) -> None:
    """Results are never written to again, so both runs can have the same files."""
    left_out = shutil.ignore_patterns(RECORD)
    shutil.copytree(source, target, ignore=left_out, copy_function=layout.link_or_copy, dirs_exist_ok=True)


def _content(measured: Path, name: str) -> str | None:
    """What identifies a result of the measured run."""
    record = read_record(measured / name)
    return None if record is None else record.content_sha256
