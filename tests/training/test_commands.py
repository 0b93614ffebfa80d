import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from genrec.errors import InputError, RecipeError
from training import commands, evaluate_bundle, items_add, refit, stages
from training.metrics import Ranks
from training.progress import Progress
from training.rank_table import RankTable, write_ranks
from training.recipe import Recipe
from training.recipe_model import Evaluate, SasRec
from training.stage import Stage, StageContext


@pytest.fixture(autouse=True)
def two_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In place of the real ones: prepare writes the seed, seal copies it into a bundle."""

    def prepare(context: StageContext) -> None:
        (context.output / "out.txt").write_text(str(context.recipe.seed))

    def seal(context: StageContext) -> None:
        (context.output / "bundle").mkdir()
        text = (context.inputs["prepare"] / "out.txt").read_text()
        (context.output / "bundle" / "manifest.json").write_text(text)

    made = (
        Stage("prepare", (), lambda recipe: recipe.prepare, prepare),
        Stage("seal", ("prepare",), lambda recipe: recipe.prepare, seal),
    )
    monkeypatch.setattr(stages, "STAGES", made)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)


def call(command: object, *arguments: str) -> str:
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_training_runs_all_stages_and_publishes_the_last(tmp_path: Path) -> None:
    said = call(commands.train, "tiny-causal", "--output", "bundles/mine", "--set", "seed=5")
    assert "bundle: bundles/mine" in said
    assert (tmp_path / "bundles" / "mine" / "manifest.json").read_text() == "5"
    assert [path.name for path in (tmp_path / "bundles" / "mine").iterdir()] == ["manifest.json"]
    assert (tmp_path / "runs" / "tiny-causal" / "prepare").is_dir()


def test_training_again_changes_nothing_and_another_bundle_needs_replace(tmp_path: Path) -> None:
    call(commands.train, "tiny-causal", "--output", "mine")
    assert "bundle: mine (unchanged)" in call(commands.train, "tiny-causal", "--output", "mine")
    (tmp_path / "mine" / "manifest.json").write_text("another")
    before = (tmp_path / "runs" / "tiny-causal" / "seal" / "stage.json").read_text()
    with pytest.raises(InputError, match="--replace"):
        call(commands.train, "tiny-causal", "--output", "mine", "--set", "seed=5")
    assert (tmp_path / "runs" / "tiny-causal" / "seal" / "stage.json").read_text() == before  # refused at once
    call(commands.train, "tiny-causal", "--output", "mine", "--set", "seed=5", "--replace")
    assert (tmp_path / "mine" / "manifest.json").read_text() == "5"


def test_a_stages_command_stops_at_the_stage(tmp_path: Path) -> None:
    assert "prepare: elsewhere/prepare" in call(commands.prepare, "tiny-causal", "--work", "elsewhere")
    assert not (tmp_path / "elsewhere" / "seal").exists()
    assert "unchanged, skipped" in call(commands.seal, "tiny-causal", "--work", "elsewhere")


def test_errors_are_left_to_the_console_command() -> None:
    with pytest.raises(RecipeError):
        call(commands.prepare, "nowhere")
    with pytest.raises(InputError, match="no stage 'merge'"):
        call(commands.merge, "tiny-causal")


def test_every_stage_command_says_what_it_does() -> None:
    assert "stage embed" in (inspect.getdoc(commands.embed) or "")


def test_other_ranks_neither_publish_nor_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(commands.seal, "tiny-causal")
    monkeypatch.setenv("RANK", "1")
    assert call(commands.train, "tiny-causal", "--output", "mine") == ""
    assert not (tmp_path / "mine").exists()


def test_from_bundle_is_a_key_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(
        stages, "stages_of", lambda recipe: seen.append(recipe.base and recipe.base.bundle) or stages.STAGES
    )
    base = tmp_path / 'odd "name"'
    call(commands.train, "tiny-causal", "--output", "mine", "--from-bundle", str(base))
    assert seen == [str(base)]
    call(commands.train, "tiny-causal", "--output", "mine")
    assert seen[-1] is None


def test_a_refit_is_run_after_the_measured_run_and_published_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_refit(recipe: Recipe, measured: Path, progress: Progress) -> None:
        assert (measured / "seal" / "bundle" / "manifest.json").is_file()
        (measured / "refit" / "seal" / "bundle").mkdir(parents=True)
        (measured / "refit" / "seal" / "bundle" / "manifest.json").write_text("refitted")

    monkeypatch.setattr(refit, "run_refit", run_refit)
    call(commands.train, "tiny-causal", "--output", "mine", "--refit")
    assert (tmp_path / "mine" / "manifest.json").read_text() == "refitted"
    with pytest.raises(RecipeError, match="holds nothing out"):
        nothing = ("prepare.split=none", "pretrain.stop_at_epoch=1", "finetune.stop_at_epoch=1")
        overrides = [part for override in nothing for part in ("--set", override)]
        call(commands.train, "tiny-causal", "--output", "other", "--refit", *overrides)


def test_items_is_a_group_of_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def add(bundle: Path, items: Path, output: Path, **rest: object) -> object:
        given.update(bundle=bundle, items=items, output=output, **rest)
        return SimpleNamespace(name="shop", version="0123456789ab")

    monkeypatch.setattr(items_add, "add_items", add)
    result = CliRunner().invoke(
        commands.items, ["add", "b", "--items", "i.csv", "--output", "o", "--list-separator", ";"]
    )
    assert result.output == "bundle: o (shop 0123456789ab)\n"
    assert (given["bundle"], given["items"], given["output"]) == (Path("b"), Path("i.csv"), Path("o"))
    assert (given["list_separator"], given["replace"], given["vectors"]) == (";", False, None)
    assert CliRunner().invoke(commands.items, ["remove"]).exit_code == 2


def test_evaluate_hands_over_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        evaluate_bundle, "evaluate_bundle", lambda bundle, output, **given: asked.update(given, paths=(bundle, output))
    )
    call(commands.evaluate, "mine", "--output", "out", "--split", "test", "--against", "other", "--num-users", "9")
    assert asked["paths"] == (Path("mine"), Path("out"))
    assert (asked["split"], asked["against"], asked["prepared"]) == ("test", Path("other"), None)
    assert asked["settings"] == Evaluate(num_users=9)
    call(commands.evaluate, "mine", "--output", "out", "--sasrec")
    assert asked["settings"] == Evaluate(sasrec=SasRec())
    assert asked["split"] == "both"


def test_compare_prints_and_writes_what_it_found(tmp_path: Path) -> None:
    ones = np.ones(20, dtype=np.int64)
    model, markov = Ranks(ones * 3, ones), Ranks(ones * 30, ones)
    users = [f"u{place}" for place in range(20)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_ranks(tmp_path / name, {"test": RankTable(users, ones, ones, {"model": model, "markov": markov})})
    said = call(commands.compare, "a", "b", "--against", "a", "--output", "out/compare.json")
    assert "test, 20 users, 2 runs" in said
    assert "+1.0000 [+1.0000, +1.0000]" in said
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (found["runs"], found["against"]) == (["a", "b"], ["a"])
    assert list(found["differences"]) == ["markov", "against"]
