"""The commands of training: the whole run, and each stage by itself.

Plain functions that the console command `genrec` finds as entry points. Stages are imported when a command runs: they
bring PyTorch along, and `--help` need not wait for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.pipeline import run_pipeline
from training.processes import is_main
from training.progress import open_progress, silence_libraries
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
    directory = _work_directory(loaded, work)
    sealed = directory / "seal" / "bundle"
    check_destination(output, sealed, replace=replace)
    _bring_up_to_date(loaded, directory)
    if is_main():
        written = publish(sealed, output, replace=replace)
        typer.echo(f"bundle: {output}" + ("" if written else " (unchanged)"))


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", help="Where metrics.json and the picture go.")],
    prepared: Annotated[
        Path | None, typer.Option(help="Result of the stage prepare. Default: runs/<name of the bundle>/prepare.")
    ] = None,
    num_users: Annotated[int | None, typer.Option(help="At most so many users a split.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Measure any bundle on prepared interactions, beside the baselines; the bundle is only read."""
    from genrec.recommender import Recommender
    from training.evaluate import describe, measure, write_metrics
    from training.recipe_model import Evaluate
    from training.sequences import load_sequences

    recommender = Recommender.load(bundle, device=device, dtype="float32")
    manifest = recommender.bundle.manifest
    directory = prepared if prepared is not None else Path("runs") / manifest.name / "prepare"
    seed = int(manifest.provenance.get("seed", 1))
    with open_progress() as progress:
        settings = Evaluate(num_users=num_users)
        metrics = measure(recommender, load_sequences(directory), settings, seed, progress)
        for line in describe(metrics):
            progress.say(line)
    write_metrics(output, metrics)
    typer.echo(f"metrics: {output}")


def import_bundle(
    model: Annotated[Path, typer.Option(help="Checkpoint directory: config.json and safetensors.")],
    tokenizer: Annotated[Path, typer.Option(help="Tokenizer directory; may be the same.")],
    codes: Annotated[Path, typer.Option(help="CSV or Parquet with code columns, or JSON of token strings.")],
    items: Annotated[Path, typer.Option(help="CSV, JSONL or Parquet: item_id and metadata.")],
    prompt: Annotated[Path, typer.Option(help="JSON: how a history becomes tokens; see docs/training.md.")],
    output: OutputOption,
    name: Annotated[str | None, typer.Option(help="Of the bundle. Default: that of the output directory.")] = None,
    collisions: Annotated[
        Literal["refuse", "reassign"],
        typer.Option(help="Items that share all codes: refuse, or give all but one a free code of the last level."),
    ] = "refuse",
    replace: ReplaceOption = False,
) -> None:
    """Make a bundle from a checkpoint trained elsewhere; nothing is trained."""
    from training.import_checkpoint import Imported, import_checkpoint

    silence_libraries()
    with open_progress() as progress:
        manifest = import_checkpoint(
            Imported(model=model, tokenizer=tokenizer, codes=codes, items=items, prompt=prompt),
            output,
            name=name or output.name,
            on_collision=collisions,
            replace=replace,
            progress=progress,
        )
    typer.echo(f"bundle: {output} ({manifest.name} {manifest.version})")


def stage_command(name: str) -> Callable[..., None]:
    """A command that brings the stages up to `name` up to date."""

    def command(recipe: RecipeArgument, overrides: SetOption = None, work: WorkOption = None) -> None:
        loaded = load_recipe(recipe, overrides or ())
        directory = _work_directory(loaded, work)
        _bring_up_to_date(loaded, directory, until=name)
        if is_main():
            typer.echo(f"{name}: {directory / name}")

    command.__name__ = name
    command.__doc__ = f"Run the stage {name}, and those before it that are not done or have changed."
    return command


def _work_directory(recipe: Recipe, work: Path | None) -> Path:
    return work if work is not None else Path("runs") / recipe.name


def _bring_up_to_date(recipe: Recipe, work: Path, until: str | None = None) -> None:
    """Run the stages, up to one of them or all."""
    from training.stages import STAGES  # PyTorch and scikit-learn come with it

    with open_progress() as progress:
        run_pipeline(STAGES, recipe, work, progress, until=until)


prepare = stage_command("prepare")
embed = stage_command("embed")
quantize = stage_command("quantize")
vocabulary = stage_command("vocabulary")
pretrain = stage_command("pretrain")
finetune = stage_command("finetune")
merge = stage_command("merge")
assemble = stage_command("assemble")
seal = stage_command("seal")
