"""The commands of training: the whole run, and each stage by itself.

Plain functions that the console command `genrec` finds as entry points. Stages are imported when a command runs: they
bring PyTorch along, and `--help` need not wait for it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.disk import full_disk_told
from training.pipeline import run_pipeline
from training.processes import is_main
from training.progress import open_progress, silence_libraries
from training.publish import check_destination, publish
from training.recipe import Recipe, load_recipe
from training.seen import REFIT
from training.stopping import stopped_by_sigterm

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
    from_bundle: Annotated[
        Path | None,
        typer.Option("--from-bundle", help="Go on from this bundle: semantic IDs are kept, its weights are the start."),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Then train once more on all interactions, test included, and ship that.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Train nothing: say what would be trained, for how long, in what memory.")
    ] = False,
) -> None:
    """Train a bundle: all stages in order, those that are done and unchanged are skipped."""
    loaded = load_recipe(recipe, [*(overrides or ()), *_base_override(from_bundle)])
    directory = _work_directory(loaded, work)
    last = directory / REFIT if refit else directory
    sealed = last / "seal" / "bundle"
    base = None if loaded.base is None else Path(loaded.base.bundle)
    check_destination(output, sealed, replace=replace, base=base, work=directory)
    if dry:
        from training.dry_run import dry_run

        with stopped_by_sigterm(), open_progress() as progress:
            dry_run(loaded, directory, progress)
        return
    _bring_up_to_date(loaded, directory, refit=refit)
    if is_main():
        with full_disk_told(output.parent, "train"):
            written = publish(sealed, output, replace=replace)
        typer.echo(f"bundle: {output}" + ("" if written else " (unchanged)"))


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", help="Where metrics.json, ranks.parquet and the page go.")],
    prepared: Annotated[
        Path | None, typer.Option(help="Result of the stage prepare. Default: runs/<name of the bundle>/prepare.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Another bundle, measured on the same users.")] = None,
    split: Annotated[Literal["test", "validation", "both"], typer.Option(help="Which held-out items.")] = "both",
    num_users: Annotated[int, typer.Option(min=1, help="At most so many users a split, drawn by a seed.")] = 50_000,
    sasrec: Annotated[bool, typer.Option("--sasrec", help="Train a SASRec as a further baseline.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Measure any bundle on prepared interactions, beside the baselines; the bundle is only read."""
    from training.evaluate_bundle import evaluate_bundle
    from training.recipe_model import Evaluate, SasRec

    settings = Evaluate(num_users=num_users, sasrec=SasRec() if sasrec else None)
    with open_progress() as progress:
        evaluate_bundle(
            bundle,
            output,
            prepared=prepared,
            against=against,
            split=split,
            settings=settings,
            device=device,
            progress=progress,
        )
    typer.echo(f"evaluation: {output}")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Work directories, or results of evaluate: seeds of one thing.")
    ],
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="The same of another thing; may be repeated.")
    ] = None,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Which held-out items.")] = "test",
    output: Annotated[Path | None, typer.Option("--output", help="A JSON file for the result.")] = None,
) -> None:
    """Pool runs that differ by seed: mean metrics, and the lead over each baseline by a paired bootstrap over users."""
    from training.compare import compare_runs, describe_comparison, write_comparison

    comparison = compare_runs(runs, against or (), split)
    for line in describe_comparison(comparison):
        typer.echo(line)
    if output is not None:
        write_comparison(output, comparison)


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


items = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@items.callback()
def _items() -> None:
    """The items of a bundle."""


@items.command("add")
def add_items(
    bundle: Annotated[Path, typer.Argument(help="A bundle; it is only read.", show_default=False)],
    table: Annotated[
        Path, typer.Option("--items", help="CSV, TSV, JSONL or Parquet: item_id and every column of the catalog.")
    ],
    output: OutputOption,
    vectors: Annotated[
        Path | None, typer.Option(help="Parquet with item_id and vector, for a bundle made with embed.given.")
    ] = None,
    list_separator: Annotated[str, typer.Option(help="Between the elements of a list that is written as text.")] = "|",
    replace: ReplaceOption = False,
) -> None:
    """Make a bundle with more items: same weights, no published semantic ID moves, nothing is trained."""
    from training.items_add import add_items as add

    silence_libraries()
    with open_progress() as progress, full_disk_told(output.parent, "items add"):
        manifest = add(
            bundle,
            table,
            output,
            list_separator=list_separator,
            vectors=vectors,
            replace=replace,
            progress=progress,
        )
    typer.echo(f"bundle: {output} ({manifest.name} {manifest.version})")


def prepare(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    work: WorkOption = None,
    show: Annotated[
        int, typer.Option("--show", min=0, help="Then show so many training examples; runs the stages to there.")
    ] = 0,
) -> None:
    """Run the stage prepare, if it is not done or has changed."""
    stage_command("prepare")(recipe, overrides, work)
    if show:
        from training.decoded import show_examples

        loaded = load_recipe(recipe, overrides or ())
        with stopped_by_sigterm(), open_progress() as progress:
            lines = show_examples(loaded, _work_directory(loaded, work), show, progress)
        if is_main():
            typer.echo("\n".join(lines))


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


def _base_override(bundle: Path | None) -> list[str]:
    return [] if bundle is None else [f"base.bundle={json.dumps(str(bundle))}"]


def _bring_up_to_date(recipe: Recipe, work: Path, until: str | None = None, *, refit: bool = False) -> None:
    """Run the stages, up to one of them or all; then those of the refit, if it is wanted."""
    from training.refit import check_refit, run_refit  # PyTorch and scikit-learn come with it
    from training.stages import stages_of

    if refit:
        check_refit(recipe)
    with stopped_by_sigterm(), open_progress() as progress:
        run_pipeline(stages_of(recipe), recipe, work, progress, until=until)
        if refit:
            run_refit(recipe, work, progress)


embed = stage_command("embed")
quantize = stage_command("quantize")
vocabulary = stage_command("vocabulary")
pretrain = stage_command("pretrain")
finetune = stage_command("finetune")
merge = stage_command("merge")
assemble = stage_command("assemble")
baselines = stage_command("baselines")
seal = stage_command("seal")
