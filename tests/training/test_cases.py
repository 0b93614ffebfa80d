import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.training.runs import Run
from training.cases import all_cases, evaluation_cases, of_some_users
from training.recipe_model import Evaluate
from training.sequences import EvaluationCase, load_sequences


def case(user: int, length: int) -> EvaluationCase:
    return EvaluationCase(user, np.zeros(length, dtype=np.int32), 0)


@given(users=st.lists(st.integers(0, 9), max_size=30), count=st.integers(1, 12), seed=st.integers(0, 9))
def test_some_users_keep_all_their_cases_in_order(users: list[int], count: int, seed: int) -> None:
    cases = [case(user, place + 1) for place, user in enumerate(users)]
    chosen = of_some_users(cases, count, seed)
    kept = {one.user for one in chosen}
    assert len(kept) == min(count, len(set(users)))
    assert chosen == [one for one in cases if one.user in kept]


def test_the_draw_follows_the_seed() -> None:
    cases = [case(user, 1) for user in range(50)]
    assert of_some_users(cases, 10, 1) == of_some_users(cases, 10, 1) != of_some_users(cases, 10, 2)


def test_each_split_has_its_own_cases(finished: Run) -> None:
    sequences = load_sequences(finished.work / "prepare")
    settings = Evaluate(num_users=40)
    for split, there in (("test", sequences.test_cases()), ("validation", sequences.validation_cases())):
        assert len(all_cases(sequences, split)) == len(there) > 40
        asked = evaluation_cases(sequences, split, settings)
        assert len(asked) == 40
        assert {(one.user, one.target) for one in asked} <= {(one.user, one.target) for one in there}
