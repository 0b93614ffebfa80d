import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.baselines import markov_ranks, popularity_ranks
from training.metrics import UNRANKED, Ranks
from training.sequences import EvaluationCase

SEQUENCES = st.lists(st.lists(st.integers(0, 7), max_size=9), max_size=5)


def items(*indices: int) -> np.ndarray:
    return np.asarray(indices, dtype=np.int32)


def case(history: np.ndarray, target: int) -> EvaluationCase:
    return EvaluationCase(0, history, target)


def pairs(ranks: Ranks) -> list[tuple[int, int]]:
    return list(zip(ranks.better.tolist(), ranks.tied.tolist(), strict=True))


def test_popularity_counts_training_items_and_leaves_out_those_seen() -> None:
    training = [items(0, 1, 2), items(1, 2), items(1)]  # counts: 1, 3, 2, 0, 0
    cases = [case(items(3), 0), case(items(1), 0), case(items(1, 2, 0), 4)]
    assert pairs(popularity_ranks(training, cases, 5)) == [(2, 1), (1, 1), (0, 2)]


def test_markov_follows_the_direction_of_the_pair() -> None:
    training = [items(0, 1), items(0, 1), items(2, 0)]
    assert pairs(markov_ranks(training, [case(items(0), 1)], 3)) == [(0, 1)]
    # 0 never followed 1, so 0 and 2 are equal.
    assert pairs(markov_ranks(training, [case(items(1), 0)], 3)) == [(0, 2)]


def test_markov_never_pairs_the_last_item_of_a_user_with_the_first_of_the_next() -> None:
    assert pairs(markov_ranks([items(0, 1), items(2, 3)], [case(items(1), 2)], 4)) == [(0, 3)]


def test_a_vote_halves_with_each_item_of_age() -> None:
    training = [items(0, 2), items(1, 3), items(1, 3)]
    # 3 has two transitions at age 1, which weigh as much as the one to 2 at age 0.
    assert pairs(markov_ranks(training, [case(items(1, 0), 2)], 5)) == [(0, 2)]
    assert pairs(markov_ranks(training, [case(items(0, 1), 2)], 5)) == [(1, 1)]


def test_only_the_last_five_items_vote() -> None:
    training = [items(0, 9)]
    voting, silent = case(items(0, 1, 2, 3, 4), 9), case(items(0, 1, 2, 3, 4, 5), 9)
    assert pairs(markov_ranks(training, [voting, silent], 10)) == [(0, 1), (0, 4)]


def test_seen_items_leave_the_ranking() -> None:
    training = [items(0, 1), items(0, 1), items(0, 2)]
    assert pairs(markov_ranks(training, [case(items(1, 0), 2)], 4)) == [(0, 1)]


@pytest.mark.parametrize("baseline", [popularity_ranks, markov_ranks])
def test_a_target_that_was_seen_is_in_no_list(baseline: object) -> None:
    ranks = baseline([items(0, 1)], [case(items(0, 1), 1)], 3)  # type: ignore[operator]
    assert ranks.better.tolist() == [UNRANKED]


@pytest.mark.parametrize("baseline", [popularity_ranks, markov_ranks])
def test_without_training_sequences_every_unseen_item_is_equal(baseline: object) -> None:
    assert pairs(baseline([], [case(items(0), 1)], 4)) == [(0, 3)]  # type: ignore[operator]
    assert pairs(baseline([items(2)], [case(items(), 3)], 4))[0][1] >= 3  # type: ignore[operator]


def oracle_markov(training: list[list[int]], history: list[int], target: int, num_items: int) -> tuple[int, int]:
    follows = Counter((a, b) for sequence in training for a, b in itertools.pairwise(sequence))
    scores = {
        item: sum(0.5**age * follows[voter, item] for age, voter in enumerate(reversed(history[-5:])))
        for item in range(num_items)
        if item not in history
    }
    better = sum(score > scores[target] for score in scores.values())
    return better, sum(score == scores[target] for score in scores.values())


def oracle_popularity(training: list[list[int]], history: list[int], target: int, num_items: int) -> tuple[int, int]:
    counts = Counter(item for sequence in training for item in sequence)
    rivals = [counts[item] for item in range(num_items) if item not in history]
    return sum(count > counts[target] for count in rivals), rivals.count(counts[target])


@given(training=SEQUENCES, history=st.lists(st.integers(0, 7), max_size=8), target=st.integers(0, 7))
def test_both_baselines_agree_with_the_definition(training: list[list[int]], history: list[int], target: int) -> None:
    history = [item for item in history if item != target]
    arrays, cases = [items(*sequence) for sequence in training], [case(items(*history), target)]
    assert pairs(markov_ranks(arrays, cases, 8)) == [oracle_markov(training, history, target, 8)]
    assert pairs(popularity_ranks(arrays, cases, 8)) == [oracle_popularity(training, history, target, 8)]


def test_a_case_does_not_change_the_next() -> None:
    training, first = [items(0, 1, 2), items(0, 2)], case(items(0), 2)
    assert len(set(pairs(popularity_ranks(training, [first, case(items(2), 1), first], 4))[::2])) == 1
    assert len(set(pairs(markov_ranks(training, [first, case(items(2), 1), first], 4))[::2])) == 1
