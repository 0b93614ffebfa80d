from typing import Any

import numpy as np
import pytest

from training.likelihood import Likelihood
from training.metrics import UNRANKED, Ranks, recall
from training.rank_table import RankTable
from training.recipe_model import Evaluate
from training.results import (
    bucket_results,
    cutoffs_within,
    differences,
    headline_columns,
    headline_names,
    likelihood_results,
    main_results,
    method_name,
    split_results,
)

SETTINGS = Evaluate(bootstrap_samples=200)
CUTOFFS = (1, 5, 10)
GENERATOR = np.random.default_rng(0)


def drawn(highest: int, count: int = 80) -> Ranks:
    better = GENERATOR.integers(highest, size=count)
    return Ranks(np.where(better > 30, UNRANKED, better), np.ones(count, dtype=np.int64))


TABLE = RankTable(
    users=[f"u{place % 40}" for place in range(80)],
    history_lengths=GENERATOR.integers(1, 200, size=80),
    target_counts=GENERATOR.integers(0, 600, size=80),
    ranks={"model": drawn(15), "markov": drawn(30), "sasrec": drawn(60)},
)


def test_the_model_is_apart_from_the_others() -> None:
    model, others = split_results(TABLE, SETTINGS, CUTOFFS)
    assert list(others) == ["markov", "sasrec"]
    assert model["recall@10"]["value"] == pytest.approx(recall(TABLE.ranks["model"], 10).mean(), abs=1e-6)
    assert list(model) == [f"{name}@{k}" for k in CUTOFFS for name in ("recall", "ndcg", "mrr")]


def test_a_difference_is_of_the_same_cases_and_has_the_sign_of_the_lead() -> None:
    leads = differences(TABLE, SETTINGS, CUTOFFS)
    model, others = split_results(TABLE, SETTINGS, CUTOFFS)
    for other, lead in leads.items():
        assert list(lead) == ["recall@10", "ndcg@10"]
        for name, cell in lead.items():
            assert cell["value"] == pytest.approx(model[name]["value"] - others[other][name]["value"], abs=2e-6)
            assert cell["low"] <= cell["value"] <= cell["high"]
    assert leads["sasrec"]["recall@10"]["low"] > 0


def test_a_method_against_itself_differs_by_nothing() -> None:
    table = TABLE.with_ranks({"model": TABLE.ranks["markov"]})
    twice = RankTable(
        table.users,
        table.history_lengths,
        table.target_counts,
        {"model": TABLE.ranks["markov"], "twin": TABLE.ranks["markov"]},
    )
    assert differences(twice, SETTINGS, CUTOFFS)["twin"]["recall@10"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_buckets_hold_every_case_once_and_add_up_to_the_whole() -> None:
    found = bucket_results(TABLE, SETTINGS, CUTOFFS)
    assert set(found) == {"target_training_count", "history_length"}
    for rows in found.values():
        assert sum(row["cases"] for row in rows) == len(TABLE)
        for method, ranks in TABLE.ranks.items():
            total = sum(row["cases"] * row["methods"][method]["recall@10"]["value"] for row in rows)
            assert total / len(TABLE) == pytest.approx(recall(ranks, 10).mean(), abs=1e-5)


def test_cut_offs_are_those_that_a_bundle_can_answer() -> None:
    assert cutoffs_within(SETTINGS, 100) == (1, 5, 10, 20)
    assert cutoffs_within(SETTINGS, 10) == (1, 5, 10)
    assert cutoffs_within(Evaluate(cutoffs=(5,)), 3) == (3,)


def test_one_number_is_at_ten_or_at_the_largest() -> None:
    assert headline_names((1, 5, 10, 20)) == ("recall@10", "ndcg@10")
    assert headline_names((1, 3)) == ("recall@3", "ndcg@3")
    assert headline_columns({"recall@1": 0, "ndcg@1": 0, "recall@5": 0, "recall@10": 0, "recall@20": 0}) == [
        "recall@5", "ndcg@5", "recall@10", "ndcg@10",
    ]  # fmt: skip
    assert headline_columns({"recall@3": 0, "ndcg@3": 0, "recall@7": 0}) == ["recall@7", "ndcg@7"]


def test_validation_counts_where_there_is_no_test() -> None:
    both: dict[str, Any] = {"test": 1, "baselines": 2, "differences": 3, "validation": 4, "validation_baselines": 5}
    assert main_results(both) == ("test", 2, 3)
    assert main_results({"validation": 4, "validation_baselines": 5, "validation_differences": 6}) == (
        "validation",
        5,
        6,
    )


def test_methods_have_names_for_readers() -> None:
    assert method_name("markov_with_validation") == "Markov chain, from validation too"
    assert method_name("films 1a2b") == "films 1a2b"


def test_the_likelihood_of_an_item_is_that_of_its_tokens_together() -> None:
    logs = np.array([[-1.0, -2.0], [-3.0, -4.0]])
    found = likelihood_results(Likelihood([None, None], logs, np.array([[True, False], [True, True]])), SETTINGS)  # type: ignore[list-item]
    assert found is not None
    assert found["item_log_likelihood"]["value"] == -5.0
    assert found["levels"] == [
        {"level": 0, "accuracy": 1.0, "log_likelihood": -2.0},
        {"level": 1, "accuracy": 0.5, "log_likelihood": -3.0},
    ]
    assert likelihood_results(Likelihood([], np.empty((0, 2)), np.empty((0, 2), dtype=bool)), SETTINGS) is None
