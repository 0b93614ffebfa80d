import json
from pathlib import Path

import numpy as np
import pytest

from genrec.errors import DataError
from training.compare import compare_runs, describe_comparison, write_comparison
from training.metrics import Ranks, recall
from training.rank_table import RankTable, write_ranks

USERS = [f"u{place:03}" for place in range(200)]


def ranks(seed: int, highest: int) -> Ranks:
    return Ranks(np.random.default_rng(seed).integers(highest, size=200), np.ones(200, dtype=np.int64))


def write_run(directory: Path, model: Ranks, markov: Ranks, users: list[str] = USERS, length: int = 4) -> Path:
    directory.mkdir(parents=True)
    counts = np.full(len(users), length)
    write_ranks(directory, {"test": RankTable(users, counts, counts, {"model": model, "markov": markov})})
    return directory


def test_seeds_are_pooled_user_by_user(tmp_path: Path) -> None:
    """The slow way: a user's value is the mean over runs; users are drawn with all their runs."""
    models, markovs = [ranks(seed, 25) for seed in (1, 2, 3)], [ranks(seed, 40) for seed in (4, 5, 6)]
    runs = [write_run(tmp_path / str(place), *pair) for place, pair in enumerate(zip(models, markovs, strict=True))]
    found = compare_runs(runs, (), "test")
    model, markov = (np.mean([recall(one, 10) for one in methods], axis=0) for methods in (models, markovs))
    assert found["users"] == found["cases"] == 200
    assert found["methods"]["model"]["recall@10"]["value"] == pytest.approx(model.mean(), abs=1e-6)
    lead = found["differences"]["markov"]["recall@10"]
    assert lead["value"] == pytest.approx(model.mean() - markov.mean(), abs=1e-6)
    generator = np.random.default_rng(0)
    means = [(model - markov)[generator.integers(200, size=200)].mean() for _ in range(10_000)]
    np.testing.assert_allclose([lead["low"], lead["high"]], np.quantile(means, [0.025, 0.975]), atol=0.004)
    assert [run["recall@10"] for run in found["each_run"]] == [
        pytest.approx(recall(one, 10).mean(), abs=1e-6) for one in models
    ]
    said = "\n".join(describe_comparison(found))
    assert "test, 200 users, 3 runs" in said
    assert f"{lead['value']:+.4f} [{lead['low']:+.4f}, {lead['high']:+.4f}]" in said


def test_two_things_are_compared_on_the_users_of_both_in_whatever_order(tmp_path: Path) -> None:
    model, markov = ranks(1, 25), ranks(2, 40)
    backwards = Ranks(markov.better[::-1].copy(), markov.tied)
    one = write_run(tmp_path / "one", model, markov)
    other = write_run(tmp_path / "work" / "evaluate", backwards, backwards, USERS[::-1]).parent
    found = compare_runs([one], [other], "test")
    assert found["differences"]["against"] == found["differences"]["markov"]
    assert list(found["methods"]) == ["model", "markov", "against"]


def test_only_users_that_every_run_asked_count(tmp_path: Path) -> None:
    some = Ranks(ranks(1, 25).better[:50], np.ones(50, dtype=np.int64))
    runs = [
        write_run(tmp_path / "all", ranks(1, 25), ranks(2, 40)),
        write_run(tmp_path / "some", some, some, USERS[:50]),
    ]
    assert compare_runs(runs, (), "test")["users"] == 50


def test_runs_that_asked_nobody_in_common_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", ranks(1, 25), ranks(2, 40))
    other = write_run(tmp_path / "other", ranks(1, 25), ranks(2, 40), length=5)  # other places of the same users
    with pytest.raises(DataError, match="no evaluated user in common"):
        compare_runs([one, other], (), "test")
    with pytest.raises(DataError, match="no ranks of validation; it has test"):
        compare_runs([one], (), "validation")
    with pytest.raises(DataError, match="holds no ranks"):
        compare_runs([tmp_path], (), "test")


def test_the_comparison_is_a_file_for_programs(tmp_path: Path) -> None:
    found = compare_runs([write_run(tmp_path / "one", ranks(1, 25), ranks(2, 40))], (), "test")
    write_comparison(tmp_path / "new" / "compare.json", found)
    assert json.loads((tmp_path / "new" / "compare.json").read_text()) == found
