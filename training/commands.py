"""The commands of training: the whole run, and each stage by itself.

Plain functions that the console command `genrec` finds as entry points. Stages are imported when a command runs: they
bring PyTorch along, and `--help` need not wait for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from genrec.errors import InputError
from training.pipeline import run_pipeline
from training.processes import is_main
from training.progress import open_progress
from training.publish import check_destination, publish
from training.recipe import Recipe, load_recipe

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a built-in recipe such as demo.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override one key of the recipe; may be repeated.")
]
WorkOption = Annotated[
    Path | None, typer.Option("--work", help="Where stages keep their results. Default: runs/<name of the recipe>.")
]
OutputOption = Annotated[Path, typer.Option("--output", help="Where the bundle goes.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace a bundle that is there.")]


def train(
    recipe: RecipeArgument,
    output: OutputOption,
    overrides: SetOption = None,
    work: WorkOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Train a bundle: all stages in order, those that are done and unchanged are skipped."""
    loaded = load_recipe(recipe, overrides or ())
    check_destination(output, replace)
    directory = _bring_up_to_date(loaded, work)
    if is_main():
        publish(directory, output, replace)
        typer.echo(f"bundle: {output}")


def stage_command(name: str) -> Callable[..., None]:
    """A command that brings the stages up to `name` up to date."""

    def command(recipe: RecipeArgument, overrides: SetOption = None, work: WorkOption = None) -> None:
        directory = _bring_up_to_date(load_recipe(recipe, overrides or ()), work, until=name)
        if is_main():
            typer.echo(f"{name}: {directory}")

    command.__name__ = name
    command.__doc__ = f"Run the stage {name}, and those before it that are not done or have changed."
    return command


def _bring_up_to_date(recipe: Recipe, work: Path | None, until: str | None = None) -> Path:
    """Run the stages; the directory of the last one."""
    from training.stages import STAGES  # PyTorch and scikit-learn come with it

    names = [stage.name for stage in STAGES]
    last = until or names[-1]
    if last not in names:
        raise InputError(f"there is no stage {last!r}; stages are {', '.join(names)}")
    work = work if work is not None else Path("runs") / recipe.name
    with open_progress() as progress:
        run_pipeline(STAGES, recipe, work, progress, until=last)
    return work / last


prepare = stage_command("prepare")
embed = stage_command("embed")
quantize = stage_command("quantize")
vocabulary = stage_command("vocabulary")
pretrain = stage_command("pretrain")
finetune = stage_command("finetune")
merge = stage_command("merge")
assemble = stage_command("assemble")
seal = stage_command("seal")
