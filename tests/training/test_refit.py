"""The second run: all interactions, as long as was best in the first, nothing measured."""

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from genrec.bundle import load_bundle
from genrec.errors import DataError, InputError, LockedError, RecipeError
from genrec.recommender import Recommender
from tests.training.bench import RememberingProgress
from tests.training.lifecycle import Later
from tests.training.runs import Run, ran
from training.ask import ask
from training.evaluate import METRICS
from training.evaluate_bundle import evaluate_bundle
from training.fit_report import FILE, read_best_epoch
from training.pipeline import locked
from training.recipe import Recipe, dump_recipe, load_recipe
from training.recipe_model import Evaluate
from training.refit import check_refit, refit_recipe, refit_stages, run_refit
from training.seen import SEEN_UNTIL
from training.sequences import load_sequences

CAUSAL = pytest.mark.parametrize("architecture", ["causal"], indirect=True)


def metrics(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "training" / METRICS).read_text())


@CAUSAL
def test_every_interaction_is_trained_on_and_none_held_out(finished: Run, refitted: Later) -> None:
    before = pl.read_parquet(finished.work / "prepare" / "interactions.parquet")
    after = pl.read_parquet(refitted.work / "prepare" / "interactions.parquet")
    assert set(after["split"].to_list()) == {"train"}
    assert after.drop("split").equals(before.drop("split"))
    assert set(before["split"].to_list()) == {"train", "validation", "test"}


@CAUSAL
def test_semantic_ids_and_tokens_are_those_of_the_measured_run(finished: Run, refitted: Later) -> None:
    measured, shipped = load_bundle(finished.bundle), load_bundle(refitted.bundle)
    assert measured.manifest.item_token_ids == shipped.manifest.item_token_ids
    for item in measured.catalog.item_ids.to_pylist():
        ids = [bundle.catalog.semantic_id(bundle.catalog.row(item)) for bundle in (measured, shipped)]
        assert ids[0] == ids[1]
    assert shipped.catalog.popularity.sum() > measured.catalog.popularity.sum()


@CAUSAL
def test_each_fitting_stops_where_the_measured_one_was_best(finished: Run, refitted: Later) -> None:
    recipe = load_recipe(refitted.bundle / "training" / "recipe.toml")
    for name in ("pretrain", "finetune"):
        assert getattr(recipe, name).stop_at_epoch == read_best_epoch(finished.work / name) is not None
        fit = json.loads((refitted.work / name / FILE).read_text())
        assert fit["curve"] == []
        assert fit["validation_recall@10"] is None
        assert fit["steps"] > 0


@CAUSAL
def test_metrics_card_and_provenance_say_whose_the_metrics_are(finished: Run, refitted: Later) -> None:
    version = load_bundle(finished.bundle).manifest.version
    provenance = load_bundle(refitted.bundle).manifest.provenance
    assert provenance["measured_version"] == version
    assert "test included" in provenance["trained_on"]
    told = metrics(refitted.bundle)
    note = told.pop("refit")
    assert told == finished.metrics
    assert note["measured_version"] == version
    for page in ("README.md", "training/report.html"):
        text = (refitted.bundle / page).read_text()
        assert note["note"] in text
        assert "this bundle |" not in text and ">this bundle<" not in text


@CAUSAL
def test_the_measured_run_has_its_metrics_still(finished: Run, refitted: Later) -> None:
    copied = refitted.work.parent / "evaluate" / METRICS
    assert json.loads(copied.read_text()) == finished.metrics
    shared = [(work / "vocabulary" / "item_tokens.json").stat() for work in (refitted.work, refitted.work.parent)]
    assert shared[0].st_ino == shared[1].st_ino  # taken, not copied


@CAUSAL
def test_the_bundle_proves_itself_and_answers(refitted: Later) -> None:
    recommender = Recommender.load(refitted.bundle, device="cpu")
    assert recommender.bundle.golden is not None and len(recommender.bundle.golden.splitlines()) == 4


@CAUSAL
def test_nothing_asks_it_about_what_it_has_seen(finished: Run, refitted: Later, tmp_path: Path) -> None:
    recommender = Recommender.load(refitted.bundle, device="cpu", golden=False)
    sequences = load_sequences(finished.work / "prepare")
    with pytest.raises(InputError, match="no result"):
        ask(recommender, sequences, sequences.test_cases()[:2], 5, 2, RememberingProgress(), "test")
    with pytest.raises(InputError, match="no result"):
        evaluate_bundle(
            refitted.bundle, tmp_path / "out", prepared=finished.work / "prepare", against=None, split="both",
            settings=Evaluate(), device="cpu", progress=RememberingProgress(),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    newest = pq.read_table(finished.work / "prepare" / "interactions.parquet")["timestamp"].to_numpy().max()
    assert recommender.bundle.manifest.provenance[SEEN_UNTIL] == newest


@CAUSAL
def test_no_stage_of_it_measures(refitted: Later) -> None:
    told = [line for line in refitted.lines if "evaluate" in line or "baselines" in line]
    assert any("taken from the measured run" in line for line in told)
    assert not [line for line in refitted.lines if line.startswith("test,")]


@CAUSAL
def test_a_second_time_nothing_is_done(finished: Run, refitted: Later) -> None:
    progress = RememberingProgress()
    run_refit(finished.recipe(), refitted.work.parent, progress)
    assert ran(progress.lines) == []


@CAUSAL
def test_it_follows_the_measured_run(finished: Run, refitted: Later) -> None:
    recipe = refit_recipe(finished.recipe("finetune.stop_at_epoch=0.5"), finished.work)
    assert recipe.finetune.stop_at_epoch == 0.5
    assert recipe.prepare.split == "none"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("prepare.split=none", "pretrain.stop_at_epoch=1", "finetune.stop_at_epoch=1"), "holds nothing out"),
        (("merge.checkpoint=checkpoint-3",), "a moment of one run"),
    ],
)
def test_a_recipe_without_a_measured_run_is_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check_refit(load_recipe("tiny-causal", overrides))


@CAUSAL
def test_a_measured_run_that_does_not_say_when_it_was_best_is_refused(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not say when"):
        refit_recipe(finished.recipe(), tmp_path)


@CAUSAL
def test_a_run_that_others_use_is_left_alone(finished: Run, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(LockedError):
        run_refit(finished.recipe(), tmp_path, RememberingProgress())
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@CAUSAL
def test_a_run_that_went_on_from_a_bundle_is_refitted_from_it_too(finished: Run, gone_on: Later) -> None:
    recipe = refit_recipe(gone_on.recipe, gone_on.work)
    assert recipe.base == gone_on.recipe.base
    assert recipe.pretrain is None  # the bundle's weights pass as they are
    assert recipe.finetune.stop_at_epoch == read_best_epoch(gone_on.work / "finetune")
    assert load_recipe_text(dump_recipe(recipe)) == recipe
    *_, last = refit_stages(gone_on.recipe, gone_on.work)
    assert last.name == "seal" and "churn" in last.needs


def load_recipe_text(text: str) -> Recipe:
    return Recipe.model_validate(tomllib.loads(text))
