"""The questions of an evaluation: which users of a split are asked about. Knows histories, not who is asked."""

from collections.abc import Sequence

import numpy as np

from training.recipe_model import Evaluate
from training.sequences import EvaluationCase, Sequences


def all_cases(sequences: Sequences, split: str) -> list[EvaluationCase]:
    """Every case of the split ``test`` or ``validation``."""
    return sequences.test_cases() if split == "test" else sequences.validation_cases()


def evaluation_cases(sequences: Sequences, split: str, settings: Evaluate) -> list[EvaluationCase]:
    """All cases of the split's users, or of as many users as the settings allow, drawn by their seed."""
    return of_some_users(all_cases(sequences, split), settings.num_users, settings.seed)


def of_some_users(cases: Sequence[EvaluationCase], count: int, seed: int) -> list[EvaluationCase]:
    """Every case of at most `count` users, drawn without replacement; in their order."""
    users = np.unique([case.user for case in cases])
    if len(users) <= count:
        return list(cases)
    chosen = frozenset(np.random.default_rng(seed).choice(users, size=count, replace=False).tolist())
    return [case for case in cases if case.user in chosen]
