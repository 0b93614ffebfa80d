import json
import math
from pathlib import Path

import pytest

from genrec.bundle import load_draft
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training.corpus import sample
from training.evaluate import describe, measure, write_metrics
from training.fit_report import read_recall
from training.sequences import load_sequences

NAMES = ["recall@5", "ndcg@5", "recall@10", "ndcg@10"]
BASELINES = {"popularity", "markov", "markov_with_validation"}


def test_metrics_of_every_method_have_a_value_within_its_interval(finished: Run) -> None:
    metrics = finished.metrics
    assert set(metrics) == {"test", "validation", "baselines", "users", "coverage", "protocol", "stages"}
    assert set(metrics["baselines"]) == BASELINES
    for table in (metrics["test"], metrics["validation"], *metrics["baselines"].values()):
        assert list(table) == NAMES
        for cell in table.values():
            assert set(cell) == {"value", "low", "high"}
            assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1
        assert table["recall@5"]["value"] <= table["recall@10"]["value"]
        assert table["ndcg@10"]["value"] <= table["recall@10"]["value"]
    assert metrics["users"] == {"test": 40, "validation": 40}
    assert metrics["protocol"]["num_beams"] == 10


def test_the_table_of_stages_has_what_each_reached_on_validation(finished: Run) -> None:
    assert finished.metrics["stages"] == {
        stage: {"validation": {"recall@10": read_recall(finished.work / stage)}} for stage in ("pretrain", "finetune")
    }


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_numbers_are_those_of_asking_the_recommender_one_by_one(finished: Run, split: str) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")
    cases = sequences.test_cases() if split == "test" else sequences.validation_cases()
    asked = sample(cases, 40, finished.recipe().seed)
    ranks = []
    for case in asked:
        history = [sequences.item_ids[row] for row in case.history]
        (answer,) = recommender.recommend([Request(history, k=10, exclude_history=True)])
        found = [item.item_id for item in answer.items]
        target = sequences.item_ids[case.target]
        ranks.append(found.index(target) + 1 if target in found else math.inf)
    table = finished.metrics[split]
    for k in (5, 10):
        assert table[f"recall@{k}"]["value"] == pytest.approx(sum(rank <= k for rank in ranks) / 40, abs=1e-6)
        gains = [1 / math.log2(1 + rank) for rank in ranks if rank <= k]
        assert table[f"ndcg@{k}"]["value"] == pytest.approx(sum(gains) / 40, abs=1e-6)


def test_baselines_are_measured_on_the_very_users_of_the_model(finished: Run) -> None:
    """Popularity by hand: the rank among unseen items, ties shared."""
    sequences = load_sequences(finished.work / "prepare")
    counts = sequences.training_counts()
    total = 0.0
    for case in sample(sequences.test_cases(), 40, finished.recipe().seed):
        if case.target in case.history:
            continue
        unseen = [row for row in range(len(counts)) if row not in case.history]
        better = sum(counts[row] > counts[case.target] for row in unseen)
        tied = sum(counts[row] == counts[case.target] for row in unseen)
        total += min(max(10 - better, 0), tied) / tied
    assert finished.metrics["baselines"]["popularity"]["recall@10"]["value"] == pytest.approx(total / 40, abs=1e-6)


def test_every_number_is_printed(finished: Run) -> None:
    said = "\n".join(finished.lines)
    for name in ("model", *BASELINES, "model, validation"):
        assert f"\n{name}" in said
    cell = finished.metrics["test"]["recall@10"]
    assert f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]" in said
    assert describe(finished.metrics)[0].startswith("test, 40 users")


def test_cutoffs_users_and_resamples_are_those_of_the_recipe(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")

    def measured(samples: int) -> dict[str, dict[str, dict[str, float]]]:
        settings = finished.recipe(
            "evaluate.cutoffs=[3]", "evaluate.num_users=15", f"evaluate.bootstrap_samples={samples}"
        ).evaluate
        return measure(recommender, sequences, settings, 1, RememberingProgress())

    few, many = measured(1), measured(500)
    assert list(few["test"]) == ["recall@3", "ndcg@3"]
    assert few["users"] == {"test": 15, "validation": 15}
    markov = few["baselines"]["markov"]["recall@3"]
    assert markov["low"] == markov["high"]  # of a single resample
    markov = many["baselines"]["markov"]["recall@3"]
    assert markov["low"] < markov["high"]


def test_plots_stand_beside_the_metrics(finished: Run, tmp_path: Path) -> None:
    for name in ("comparison.png", "curves.png"):
        assert (finished.work / "evaluate" / name).read_bytes().startswith(b"\x89PNG")
    write_metrics(tmp_path / "new", finished.metrics)
    assert json.loads((tmp_path / "new" / "metrics.json").read_text()) == finished.metrics
    assert (tmp_path / "new" / "comparison.png").read_bytes() == (
        finished.work / "evaluate" / "comparison.png"
    ).read_bytes()
