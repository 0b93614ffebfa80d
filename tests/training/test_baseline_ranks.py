import json
from pathlib import Path

from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training import baseline_ranks
from training.baseline_ranks import rank_baselines, read_sasrec
from training.baselines import markov_ranks
from training.cases import evaluation_cases
from training.rank_table import read_ranks
from training.recipe import load_recipe
from training.sequences import load_sequences

SHORT_SASREC = ("evaluate.sasrec.epochs=2", "evaluate.sasrec.dimensions=8")


def test_every_split_has_the_methods_that_may_stand_beside_it(finished: Run) -> None:
    tables = read_ranks(finished.work / "baselines")
    assert {split: list(table.ranks) for split, table in tables.items()} == {
        "validation": ["popularity", "markov"],
        "test": ["popularity", "markov", "markov_with_validation"],
    }
    assert all(len(table) == 40 for table in tables.values())
    assert read_sasrec(finished.work / "baselines") is None


def test_the_chain_that_learns_from_validation_knows_what_a_model_reads_of_test_users(finished: Run) -> None:
    sequences = load_sequences(finished.work / "prepare")
    settings = finished.recipe().evaluate
    cases = evaluation_cases(sequences, "test", settings)
    expected = markov_ranks(sequences.sequences_before_test(), cases, len(sequences.item_ids))
    found = read_ranks(finished.work / "baselines")["test"].ranks
    assert found["markov_with_validation"].better.tolist() == expected.better.tolist()
    assert found["markov"].better.tolist() != expected.better.tolist()


def test_a_sasrec_is_trained_if_asked_for_and_what_it_was_is_told(finished: Run, tmp_path: Path) -> None:
    progress = finished.stage(baseline_ranks.STAGE, tmp_path / "out", *SHORT_SASREC)
    tables = read_ranks(tmp_path / "out")
    assert list(tables["test"].ranks) == ["popularity", "markov", "markov_with_validation", "sasrec"]
    assert "sasrec" in tables["validation"].ranks
    told = read_sasrec(tmp_path / "out")
    assert told is not None
    assert told["softmax"] == "full catalog"
    assert told["settings"]["dimensions"] == 8
    assert 1 <= told["best_epoch"] <= told["epochs"] == 2
    assert any(line.startswith("sasrec: best of 2 epochs") and line.endswith(" s") for line in progress.lines)


def test_a_large_catalog_is_told_to_have_been_sampled(finished: Run) -> None:
    recipe = finished.recipe(*SHORT_SASREC, "evaluate.sasrec.full_softmax_items=3", "evaluate.sasrec.negatives=5")
    sequences = load_sequences(finished.work / "prepare")
    _, told = rank_baselines(sequences, recipe.evaluate, 1, RememberingProgress())
    assert told is not None and told["softmax"] == "5 sampled items a step"


def test_an_equal_run_writes_equal_bytes(finished: Run, tmp_path: Path) -> None:
    """No clock times: what follows must not run again for them."""
    for name in ("a", "b"):
        finished.stage(baseline_ranks.STAGE, tmp_path / name, *SHORT_SASREC)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["ranks.parquet", "sasrec.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_only_what_baselines_depend_on_runs_them_again() -> None:
    def section(*overrides: str) -> str:
        return json.dumps(baseline_ranks.STAGE.section(load_recipe("tiny-causal", overrides)), default=str)

    assert section("evaluate.cutoffs=[3]", "bundle.max_k=30", "finetune.lora.r=2") == section()
    assert section("evaluate.num_users=7") != section()
    assert section("evaluate.sasrec.epochs=7") != section()
