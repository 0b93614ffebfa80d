import numpy as np
import pytest

from training.embed_predicted import Ridge, fit_ridge

RNG = np.random.default_rng(0)


def linear(noise: float, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    inputs = RNG.normal(size=(count, 6)).astype(np.float32)
    targets = inputs @ RNG.normal(size=(6, 3)) + [3, 0, 0] + RNG.normal(0, noise, size=(count, 3))
    return inputs, (targets / np.linalg.norm(targets, axis=1, keepdims=True)).astype(np.float32)


def test_what_follows_from_the_text_is_predicted_and_measured_on_items_left_out() -> None:
    fitted = fit_ridge(*linear(noise=0.1), seed=1)
    assert fitted is not None
    measured = fitted[1]
    assert measured.items == 300
    assert measured.r2 > 0.5
    assert measured.cosine > measured.cosine_of_the_mean + 0.1


def test_what_does_not_follow_from_the_text_is_measured_as_such() -> None:
    inputs, targets = linear(noise=0.1)
    fitted = fit_ridge(inputs, RNG.permutation(targets), seed=1)
    assert fitted is not None
    ridge, measured = fitted
    # Fitted on all, 300 items and 6 dimensions would promise more than nothing; held out, they do not.
    assert measured.r2 < 0.02
    predicted = ridge.predict(inputs)
    assert np.linalg.norm(predicted - targets.mean(axis=0), axis=1).mean() < 0.2


def test_a_seed_gives_the_same_regression_and_it_survives_being_saved() -> None:
    inputs, targets = linear(noise=0.5)
    first, second = fit_ridge(inputs, targets, seed=3), fit_ridge(inputs, targets, seed=3)
    assert first is not None
    assert second is not None
    assert first[1] == second[1]
    again = Ridge.of_tensors(first[0].tensors)
    assert again is not None
    assert (again.predict(inputs) == second[0].predict(inputs)).all()
    assert Ridge.of_tensors({}) is None


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1, False), (2, True), (3, True)])
def test_few_items_are_enough_or_there_is_no_regression(count: int, fits: bool) -> None:
    inputs, targets = linear(noise=0.1)
    assert (fit_ridge(inputs[:count], targets[:count], seed=1) is not None) == fits
