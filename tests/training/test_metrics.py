import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from training import metrics
from training.metrics import UNRANKED, Interval, Ranks, bootstrap, exposure, mrr, ndcg, ranking_metrics, recall


def ranks(better: list[int], tied: list[int] | None = None) -> Ranks:
    counts = np.asarray(better, dtype=np.int64)
    return Ranks(counts, np.ones_like(counts) if tied is None else np.asarray(tied, dtype=np.int64))


def test_recall_is_one_within_the_cutoff_and_zero_beyond_it() -> None:
    assert recall(ranks([0, 4, 5, UNRANKED]), 5).tolist() == [1, 1, 0, 0]


def test_ndcg_is_one_over_log2_of_one_plus_the_rank() -> None:
    expected = [1, 1 / math.log2(3), 1 / math.log2(6), 0, 0]
    np.testing.assert_allclose(ndcg(ranks([0, 1, 4, 5, UNRANKED]), 5), expected)


def test_a_tie_across_the_cutoff_counts_by_the_share_within_it() -> None:
    # Ranks 5, 6, 7, 8 are equally likely; one of four is within 5.
    tie = ranks([4], [4])
    assert recall(tie, 5).tolist() == [0.25]
    np.testing.assert_allclose(ndcg(tie, 5), [0.25 / math.log2(6)])


@given(scores=st.lists(st.integers(0, 2), min_size=1, max_size=6), data=st.data(), k=st.integers(1, 8))
def test_tied_metrics_are_the_mean_over_every_order_of_the_ties(scores: list[int], data: st.DataObject, k: int) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    better = sum(score > scores[target] for score in scores)
    tied = scores.count(scores[target])
    places = []
    for order in itertools.permutations(range(len(scores))):
        # A stable sort of a shuffled list: every order of the ties comes equally often.
        places.append(sorted(order, key=lambda item: -scores[item]).index(target) + 1)
    hits = [place <= k for place in places]
    gains = [1 / math.log2(1 + place) if place <= k else 0.0 for place in places]
    np.testing.assert_allclose(recall(ranks([better], [tied]), k), [np.mean(hits)])
    np.testing.assert_allclose(ndcg(ranks([better], [tied]), k), [np.mean(gains)], atol=1e-12)
    inverse = [1 / place if place <= k else 0.0 for place in places]
    np.testing.assert_allclose(mrr(ranks([better], [tied]), k), [np.mean(inverse)], atol=1e-12)


@given(better=st.integers(0, 50), tied=st.integers(1, 50), k=st.integers(1, 60))
def test_metrics_stay_within_zero_and_one_and_grow_with_k(better: int, tied: int, k: int) -> None:
    for metric in (recall, ndcg, mrr):
        now, more = metric(ranks([better], [tied]), k)[0], metric(ranks([better], [tied]), k + 1)[0]
        assert 0 <= now <= more <= 1
        assert metric(ranks([UNRANKED], [tied]), k)[0] == 0


def test_lists_give_the_position_of_the_target_and_unranked_where_it_is_missing() -> None:
    found = Ranks.from_lists([[7, 3], [1, 2, 3], np.array([], dtype=np.int32)], np.array([7, 3, 9], dtype=np.int32))
    assert found.better.tolist() == [0, 2, UNRANKED]
    assert found.tied.tolist() == [1, 1, 1]


def test_lists_and_targets_of_different_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="1 lists for 2 targets"):
        Ranks.from_lists([[1]], [1, 2])


@pytest.mark.parametrize(("better", "tied"), [([-1], [1]), ([0], [0]), ([0, 1], [1])])
def test_impossible_ranks_are_refused(better: list[int], tied: list[int]) -> None:
    with pytest.raises(DataError, match="rank"):
        ranks(better, tied)


@pytest.mark.parametrize("metric", [recall, ndcg, mrr])
def test_a_cutoff_below_one_is_refused(metric: object) -> None:
    with pytest.raises(DataError, match="k=0"):
        metric(ranks([0]), 0)  # type: ignore[operator]


def test_the_interval_is_the_percentile_bootstrap_that_draws_users_one_by_one() -> None:
    values = np.random.default_rng(1).choice([0.0, 0.3, 1.0], size=400, p=[0.7, 0.2, 0.1])
    ours = bootstrap(values, seed=2, resamples=20_000)
    generator = np.random.default_rng(3)
    means = values[generator.integers(400, size=(20_000, 400))].mean(axis=1)
    assert ours.value == pytest.approx(values.mean())
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(means, [0.025, 0.975]), atol=0.002)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random(300)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4)
    assert bootstrap(values, seed=4) != bootstrap(values, seed=5)


def test_users_who_all_agree_leave_an_interval_of_no_width() -> None:
    assert bootstrap(np.full(50, 0.5), seed=0) == Interval(0.5, 0.5, 0.5)


def test_an_interval_over_no_users_is_refused() -> None:
    with pytest.raises(DataError, match="no user"):
        bootstrap(np.empty(0), seed=0)


def test_metrics_are_named_by_their_cutoff() -> None:
    found = ranking_metrics(ranks([0, 7]), seed=0)
    assert list(found) == [f"{name}@{k}" for k in (1, 5, 10, 20) for name in ("recall", "ndcg", "mrr")]
    assert found["recall@5"].value == 0.5
    assert found["recall@10"] == Interval(1.0, 1.0, 1.0)
    assert found["recall@1"] == found["ndcg@1"] == found["mrr@1"]
    assert list(ranking_metrics(ranks([0]), seed=0, cutoffs=(3,))) == ["recall@3", "ndcg@3", "mrr@3"]


def test_the_paired_bootstrap_is_the_slow_loop_over_users() -> None:
    """Two methods on the same users, some with several cases: whole users are drawn, and both methods with them."""
    generator = np.random.default_rng(1)
    users = generator.integers(60, size=150)
    one = generator.choice([0.0, 0.4, 1.0], size=150)
    other = np.where(generator.random(150) < 0.7, one, generator.choice([0.0, 0.4, 1.0], size=150))
    ours = bootstrap(one - other, users=users, seed=2, resamples=20_000)
    means = []
    named = np.unique(users)
    cases_of = {user: np.flatnonzero(users == user) for user in named}
    for _ in range(6_000):
        drawn = np.concatenate([cases_of[user] for user in generator.choice(named, size=len(named))])
        means.append(one[drawn].mean() - other[drawn].mean())
    assert ours.value == pytest.approx(one.mean() - other.mean())
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(means, [0.025, 0.975]), atol=0.008)


def test_many_cases_of_few_users_are_not_many_users() -> None:
    values = np.repeat(np.random.default_rng(0).random(20), 50)
    users = np.repeat(np.arange(20), 50)
    alone, grouped = bootstrap(values, seed=1), bootstrap(values, users=users, seed=1)
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=30), seed=st.integers(0, 5))
def test_a_user_with_one_case_each_is_the_plain_bootstrap(values: list[float], seed: int) -> None:
    array = np.asarray(values)
    shuffled = np.random.default_rng(0).permutation(len(array)) + 100
    assert bootstrap(array, users=shuffled, seed=seed, resamples=50) == bootstrap(array, seed=seed, resamples=50)
    plain = bootstrap(array, seed=seed, resamples=50)
    assert array.min() - 1e-9 <= plain.low <= plain.high <= array.max() + 1e-9


def test_draws_in_parts_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(300)
    at_once = bootstrap(values, seed=4, resamples=700)
    monkeypatch.setattr(metrics, "_COUNTS_AT_ONCE", 300 * 64)
    assert bootstrap(values, seed=4, resamples=700) == at_once


def test_exposure_counts_the_lists_that_an_item_is_in() -> None:
    assert exposure([[1, 2], [2, 3], [], [-1]], 5).tolist() == [0, 1, 2, 1, 0]
    assert exposure([], 2).tolist() == [0, 0]
