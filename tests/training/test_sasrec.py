import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.errors import DataError
from tests.training.bench import RememberingProgress
from training import sasrec
from training.metrics import UNRANKED, Ranks, recall
from training.recipe_model import SasRec
from training.sasrec import FittedSasRec, SasRecModel, fit_sasrec, sampled_loss, sasrec_ranks
from training.sequences import EvaluationCase

NUM_ITEMS = 24
SMALL = SasRec(dimensions=16, dropout=0.1, max_history_items=6, batch_size=16, learning_rate=2e-2, epochs=10)


def rows(*items: int) -> np.ndarray:
    return np.asarray(items, dtype=np.int32)


def walk(start: int, length: int) -> np.ndarray:
    """Each item is followed by the same one, always: 5 steps further in the ring."""
    return rows(*((start + 5 * step) % NUM_ITEMS for step in range(length)))


TRAINING = [walk(user % NUM_ITEMS, 4 + user % 9) for user in range(96)]
CASES = [EvaluationCase(user, walk(user, 5)[:-1], int(walk(user, 5)[-1])) for user in range(NUM_ITEMS)]


def fit(wanted: SasRec = SMALL, seed: int = 1) -> FittedSasRec:
    return fit_sasrec(TRAINING, CASES, NUM_ITEMS, wanted, seed, RememberingProgress(), device="cpu")


@pytest.mark.parametrize("full_softmax_items", [NUM_ITEMS, 1])
def test_it_learns_what_always_follows(full_softmax_items: int) -> None:
    fitted = fit(SMALL.model_copy(update={"full_softmax_items": full_softmax_items, "negatives": 8}))
    assert fitted.negatives == (None if full_softmax_items == NUM_ITEMS else 8)
    assert recall(sasrec_ranks(fitted.model, CASES, NUM_ITEMS), 1).mean() > 0.9
    assert fitted.best_epoch <= fitted.epochs <= 10


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    short = SMALL.model_copy(update={"epochs": 2, "full_softmax_items": 1, "negatives": 8})
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    first = fit(short).model.state_dict()
    assert torch.equal(torch.rand(1), before), "the caller's generator was moved"
    torch.rand(7)
    second, other = fit(short).model.state_dict(), fit(short, seed=2).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["items.weight"], other["items.weight"])


def test_the_weights_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is made to get worse with every epoch, so what counts is the first."""
    first = fit(SMALL.model_copy(update={"epochs": 1})).model.state_dict()
    worse = itertools.count()
    monkeypatch.setattr(sasrec, "sasrec_ranks", lambda *_: Ranks(np.array([next(worse)]), np.array([1])))
    fitted = fit(SMALL.model_copy(update={"epochs": 3}))
    assert (fitted.best_epoch, fitted.epochs, fitted.validation_ndcg) == (1, 3, 1.0)
    assert all(torch.equal(first[name], weights) for name, weights in fitted.model.state_dict().items())


def test_training_stops_when_validation_no_longer_grows() -> None:
    frozen = SMALL.model_copy(update={"learning_rate": 1e-12, "patience": 2, "epochs": 20})
    fitted = fit(frozen)
    assert (fitted.best_epoch, fitted.epochs) == (1, 3)


@given(data=st.data(), num_items=st.integers(2, 9))
@settings(deadline=None)
def test_a_sample_of_all_items_gives_the_full_cross_entropy(data: st.DataObject, num_items: int) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    states, items = (torch.randn(size, 4, generator=generator) for size in (3, num_items))
    targets = torch.randint(num_items, (3,), generator=generator)
    full = torch.nn.functional.cross_entropy(states @ items.T, targets, reduction="sum")
    sampled = sampled_loss(states, items, targets, torch.randperm(num_items, generator=generator), num_items)
    torch.testing.assert_close(sampled, full)


def test_a_sample_stands_for_all_other_items() -> None:
    """Equal scores everywhere: the target's probability is one in N, however few are drawn."""
    states, items = torch.zeros(2, 4), torch.randn(50, 4)
    loss = sampled_loss(states, items, torch.tensor([3, 7]), torch.tensor([3, 11, 12]), 50)
    assert loss.item() == pytest.approx(2 * math.log(50), rel=1e-6)


def test_a_place_sees_nothing_after_it_and_no_padding() -> None:
    torch.manual_seed(0)
    model = SasRecModel(NUM_ITEMS, SMALL).eval()
    alone = model(torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.bool))
    changed = model(torch.tensor([[3, 4, 9]]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(alone[:, :2], changed[:, :2])
    assert not torch.allclose(alone[:, 2], changed[:, 2])
    for filler in (0, 7):
        padded = torch.tensor([[filler, filler, 3, 4, 5]])
        real = torch.tensor([[False, False, True, True, True]])
        torch.testing.assert_close(model(padded, real)[:, 2:], alone, rtol=1e-5, atol=1e-5)


def test_ranks_are_those_of_scoring_one_case_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = SasRecModel(NUM_ITEMS, SMALL).eval()
    cases = [EvaluationCase(0, rows(1, 2, 3, 4, 5, 6, 7, 8), 9), EvaluationCase(1, rows(3), 2), CASES[4]]
    monkeypatch.setattr(sasrec, "LOGITS_AT_ONCE", 2 * NUM_ITEMS)
    ranks = sasrec_ranks(model, cases, NUM_ITEMS)
    for place, case in enumerate(cases):
        newest = torch.from_numpy(case.history[-6:]).long()[None]
        with torch.inference_mode():
            scores = (model(newest, torch.ones_like(newest, dtype=torch.bool))[0, -1] @ model.items.weight.T).tolist()
        rivals = [scores[item] for item in range(NUM_ITEMS) if item not in case.history]
        assert ranks.better[place] == sum(score > scores[case.target] + 1e-6 for score in rivals)
        assert ranks.tied[place] == 1


def test_a_target_that_was_seen_is_in_no_list() -> None:
    model = SasRecModel(NUM_ITEMS, SMALL)
    ranks = sasrec_ranks(model, [EvaluationCase(0, rows(1, 2), 2), EvaluationCase(0, rows(1, 2), 3)], NUM_ITEMS)
    assert ranks.better[0] == UNRANKED and ranks.better[1] < NUM_ITEMS
    assert ranks.tied.tolist() == [1, 1]


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6), steps=st.integers(1, 9), seed=st.integers(0, 20))
def test_an_epoch_has_every_transition_once_in_windows_no_longer_than_allowed(
    lengths: list[int], steps: int, seed: int
) -> None:
    sequences = [rows(*range(100 * user, 100 * user + length)) for user, length in enumerate(lengths)]
    wanted = SasRec(max_history_items=steps, batch_size=3)
    batches = list(sasrec._batches(sequences, wanted, np.random.default_rng(seed)))
    windows = [window.tolist() for batch in batches for window in batch]
    assert all(2 <= len(window) <= steps + 1 for window in windows)
    pairs = sorted(pair for window in windows for pair in itertools.pairwise(window))
    assert pairs == sorted(pair for sequence in sequences for pair in itertools.pairwise(sequence.tolist()))
    assert all(len(batch) <= 3 for batch in batches)


def test_cuts_are_elsewhere_every_epoch() -> None:
    rng = np.random.default_rng(0)
    wanted = SasRec(max_history_items=4)
    epochs = [
        [tuple(window.tolist()) for batch in sasrec._batches([rows(*range(30))], wanted, rng) for window in batch]
        for _ in range(2)
    ]
    assert set(epochs[0]) != set(epochs[1])


def test_the_gradient_is_the_same_however_many_places_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SMALL.model_copy(update={"dropout": 0.0, "epochs": 1})
    whole = fit(plain).model.items.weight
    monkeypatch.setattr(sasrec, "LOGITS_AT_ONCE", 5 * NUM_ITEMS)
    torch.testing.assert_close(fit(plain).model.items.weight, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("training", "validation"), [([walk(0, 1)], CASES), ([], CASES), (TRAINING, [])])
def test_without_transitions_or_validation_nothing_is_trained(
    training: list[np.ndarray], validation: list[EvaluationCase]
) -> None:
    with pytest.raises(DataError, match="SASRec needs users"):
        fit_sasrec(training, validation, NUM_ITEMS, SMALL, 1, RememberingProgress(), device="cpu")


def test_heads_that_do_not_divide_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dimensions = 16 is not a multiple of heads = 3"):
        SasRec(dimensions=16, heads=3)
