import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genrec.bundle import load_draft
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training.ask import answer_one
from training.baseline_ranks import rank_baselines
from training.cases import evaluation_cases
from training.evaluate import STAGE, describe, measure
from training.fit_report import read_recall
from training.rank_table import read_ranks
from training.results import metric_values
from training.sequences import load_sequences

NAMES = [f"{name}@{k}" for k in (1, 5, 10, 20) for name in ("recall", "ndcg", "mrr")]
BASELINES = {"popularity", "markov", "markov_with_validation"}


def test_metrics_of_every_method_have_a_value_within_its_interval(finished: Run) -> None:
    metrics = finished.metrics
    assert set(metrics) == {
        "test", "baselines", "differences", "validation", "validation_baselines", "validation_differences", "buckets",
        "users", "cases", "coverage", "likelihood", "protocol", "stages",
    }  # fmt: skip
    assert set(metrics["validation_baselines"]) == BASELINES - {"markov_with_validation"}
    assert set(metrics["baselines"]) == BASELINES
    for table in (metrics["test"], metrics["validation"], *metrics["baselines"].values()):
        assert list(table) == NAMES
        for cell in table.values():
            assert set(cell) == {"value", "low", "high"}
            assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1
        assert table["recall@5"]["value"] <= table["recall@10"]["value"]
        assert table["ndcg@10"]["value"] <= table["recall@10"]["value"]
    assert metrics["users"] == {"test": 40, "validation": 40}
    assert metrics["protocol"]["num_beams"] == 20


def test_the_table_of_stages_has_what_each_reached_on_validation(finished: Run) -> None:
    assert finished.metrics["stages"] == {
        stage: {"validation": {"recall@10": read_recall(finished.work / stage)}} for stage in ("pretrain", "finetune")
    }


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_numbers_are_those_of_asking_the_recommender_one_by_one(finished: Run, split: str) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")
    asked = evaluation_cases(sequences, split, finished.recipe().evaluate)
    ranks = []
    for case in asked:
        history = [sequences.item_ids[row] for row in case.history]
        (answer,) = recommender.recommend([Request(history, k=20, exclude_history=True)])
        found = [item.item_id for item in answer.items]
        target = sequences.item_ids[case.target]
        ranks.append(found.index(target) + 1 if target in found else math.inf)
    table = finished.metrics[split]
    for k in (1, 5, 10, 20):
        assert table[f"recall@{k}"]["value"] == pytest.approx(sum(rank <= k for rank in ranks) / 40, abs=1e-6)
        gains = [1 / math.log2(1 + rank) for rank in ranks if rank <= k]
        assert table[f"ndcg@{k}"]["value"] == pytest.approx(sum(gains) / 40, abs=1e-6)


def test_baselines_are_measured_on_the_very_users_of_the_model(finished: Run) -> None:
    """Popularity by hand: the rank among unseen items, ties shared."""
    sequences = load_sequences(finished.work / "prepare")
    counts = sequences.training_counts()
    total = 0.0
    for case in evaluation_cases(sequences, "test", finished.recipe().evaluate):
        if case.target in case.history:
            continue
        unseen = [row for row in range(len(counts)) if row not in case.history]
        better = sum(counts[row] > counts[case.target] for row in unseen)
        tied = sum(counts[row] == counts[case.target] for row in unseen)
        total += min(max(10 - better, 0), tied) / tied
    assert finished.metrics["baselines"]["popularity"]["recall@10"]["value"] == pytest.approx(total / 40, abs=1e-6)


def test_every_number_is_printed(finished: Run) -> None:
    said = "\n".join(finished.lines)
    for name in ("model", *BASELINES, "model, validation", "model - markov"):
        assert f"\n{name}" in said
    cell = finished.metrics["test"]["recall@10"]
    assert f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]" in said
    lead = finished.metrics["differences"]["popularity"]["ndcg@10"]
    assert f"{lead['value']:+.4f} [{lead['low']:+.4f}, {lead['high']:+.4f}]" in said
    assert describe(finished.metrics)[0].startswith("test, 40 users")


def test_cutoffs_users_and_resamples_are_those_of_the_recipe(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")

    def measured(samples: int) -> Mapping[str, Any]:
        settings = finished.recipe(
            "evaluate.cutoffs=[3]", "evaluate.num_users=15", f"evaluate.bootstrap_samples={samples}"
        ).evaluate
        baselines, _ = rank_baselines(sequences, settings, 1, RememberingProgress())
        return measure(recommender, sequences, baselines, settings, RememberingProgress()).metrics

    few, many = measured(1), measured(500)
    assert list(few["test"]) == ["recall@3", "ndcg@3", "mrr@3"]
    assert few["users"] == few["cases"] == {"test": 15, "validation": 15}
    assert few["coverage"]["k"] == 3
    assert few["protocol"]["users"] == ("15 of 120 of validation, drawn by seed 1; 15 of 120 of test, drawn by seed 1")
    markov = few["baselines"]["markov"]["recall@3"]
    assert markov["low"] == markov["high"]  # of a single resample
    markov = many["baselines"]["markov"]["recall@3"]
    assert markov["low"] < markov["high"]


def test_one_split_alone_is_measured_as_it_is_beside_the_other(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences, baselines = load_sequences(finished.work / "prepare"), read_ranks(finished.work / "baselines")
    settings, whole = finished.recipe().evaluate, finished.metrics
    alone = {
        split: measure(recommender, sequences, {split: baselines[split]}, settings, RememberingProgress()).metrics
        for split in ("test", "validation")
    }
    assert set(alone["test"]) == set(whole) - {"stages", *(name for name in whole if name.startswith("validation"))}
    assert alone["test"]["test"] == whole["test"]
    assert set(alone["validation"]) == set(alone["test"]) - {"test", "baselines", "differences"} | {
        "validation", "validation_baselines", "validation_differences"
    }  # fmt: skip
    assert alone["validation"]["validation_differences"] == whole["validation_differences"]
    assert alone["validation"]["buckets"]["split"] == "validation"
    assert describe(alone["validation"])[0].startswith("validation, 40 users")


def test_coverage_counts_the_items_of_all_lists(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")
    cases = evaluation_cases(sequences, "test", finished.recipe().evaluate)
    found = {item.item_id for case in cases for item in answer_one(recommender, sequences, case, 20).items[:10]}
    assert finished.metrics["coverage"] == {
        "distinct_items": len(found), "catalog_size": len(sequences.item_ids), "k": 10
    }  # fmt: skip


def test_what_the_metrics_were_computed_from_stands_beside_them(finished: Run) -> None:
    """From the stored ranks alone, each number is found again."""
    table, metrics = read_ranks(finished.work / "evaluate")["test"], finished.metrics
    assert list(table.ranks) == ["model", "popularity", "markov", "markov_with_validation"]
    for method, cells in {"model": metrics["test"], **metrics["baselines"]}.items():
        for name, cell in cells.items():
            assert metric_values(table.ranks[method], name).mean() == pytest.approx(cell["value"], abs=1e-6)
    examples = json.loads((finished.work / "evaluate" / "examples.json").read_text())
    assert len(examples) == finished.recipe().evaluate.examples


def test_the_likelihood_is_measured_on_no_more_users_than_asked_for(finished: Run) -> None:
    assert finished.metrics["likelihood"]["cases"] == 40
    levels = json.loads((finished.work / "quantize" / "report.json").read_text())["levels"]
    assert [row["level"] for row in finished.metrics["likelihood"]["levels"]] == [row["level"] for row in levels]


def test_plots_stand_beside_the_metrics(finished: Run) -> None:
    for name in ("comparison.png", "curves.png", "buckets.png", "coverage.png"):
        assert (finished.work / "evaluate" / name).read_bytes().startswith(b"\x89PNG")


def test_an_equal_run_writes_equal_bytes(finished: Run, tmp_path: Path) -> None:
    finished.stage(STAGE, tmp_path / "again")
    files = {path.name for path in (tmp_path / "again").iterdir()}
    assert files == {path.name for path in (finished.work / "evaluate").iterdir()} - {"stage.json"}
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (finished.work / "evaluate" / name).read_bytes(), name
