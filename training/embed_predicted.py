"""The collaborative part of an item that nobody has touched, predicted from its other parts by a ridge regression.

Knows two matrices of item rows. Knows nothing of texts or sequences. Shapes: n items of both, X and Y dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.embed_part import FloatArray

FOLDS = 5
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Tried, as multiples of the mean square of an input dimension summed over the items."""


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A linear map with an intercept.

    Attributes:
        weights: (X, Y) float32.
        intercept: (Y,) float32.
    """

    weights: FloatArray
    intercept: FloatArray

    def predict(self, inputs: FloatArray) -> FloatArray:
        """(m, X) -> (m, Y) float32."""
        predicted: FloatArray = inputs @ self.weights + self.intercept
        return predicted

    @property
    def tensors(self) -> Mapping[str, FloatArray]:
        """For ``embedder.safetensors``; `of_tensors` reads them back."""
        return {"predicted.weights": self.weights, "predicted.intercept": self.intercept}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, FloatArray]) -> "Ridge | None":
        """Read it back; None where none was fitted."""
        if "predicted.weights" not in tensors or "predicted.intercept" not in tensors:
            return None
        return cls(tensors["predicted.weights"], tensors["predicted.intercept"])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well items are predicted that the regression was not fitted on.

    Attributes:
        items: n.
        r2: Share of the variance that is predicted, over all dimensions.
        cosine: Mean cosine between an item's own part and the predicted one.
        cosine_of_the_mean: The same when the mean of all items is predicted for each: what must be beaten.
        penalty: Chosen by `r2`.
    """

    items: int
    r2: float
    cosine: float
    cosine_of_the_mean: float
    penalty: float


def fit_ridge(inputs: FloatArray, targets: FloatArray, seed: int) -> tuple[Ridge, HeldOut] | None:
    """Fit on all items, with the penalty that predicts best over five folds. None for fewer than two items.

    Args:
        inputs: (n, X).
        targets: (n, Y), of unit length.
        seed: Of the folds.
    """
    count = len(inputs)
    if count < 2:
        return None
    inputs, targets = inputs.astype(np.float64), targets.astype(np.float64)
    fold = np.random.default_rng(seed).permutation(count) % min(FOLDS, count)
    predictions = {penalty: np.empty_like(targets) for penalty in PENALTIES}
    means = np.empty_like(targets)
    for number in range(fold.max() + 1):
        held_out = fold == number
        solved = _solve(inputs[~held_out], targets[~held_out])
        means[held_out] = targets[~held_out].mean(axis=0)
        for penalty, (weights, intercept) in solved.items():
            predictions[penalty][held_out] = inputs[held_out] @ weights + intercept
    errors = {penalty: float(((targets - made) ** 2).sum()) for penalty, made in predictions.items()}
    best = min(PENALTIES, key=errors.__getitem__)
    spread = max(float(((targets - means) ** 2).sum()), 1e-12)
    weights, intercept = _solve(inputs, targets)[best]
    measured = HeldOut(
        items=count,
        r2=round(1 - errors[best] / spread, 4),
        cosine=round(_cosine(targets, predictions[best]), 4),
        cosine_of_the_mean=round(_cosine(targets, means), 4),
        penalty=best,
    )
    return Ridge(weights.astype(np.float32), intercept.astype(np.float32)), measured


def _solve(inputs: FloatArray, targets: FloatArray) -> dict[float, tuple[FloatArray, FloatArray]]:
    """Penalty -> weights and intercept, by one eigendecomposition."""
    middle, level = inputs.mean(axis=0), targets.mean(axis=0)
    centred = inputs - middle
    values, vectors = np.linalg.eigh(centred.T @ centred)
    unit = max(float(values.mean()), 1e-12)
    projected = vectors.T @ (centred.T @ (targets - level))
    solved = {}
    for penalty in PENALTIES:
        weights = vectors @ (projected / (np.maximum(values, 0) + penalty * unit)[:, None])
        solved[penalty] = (weights, level - middle @ weights)
    return solved


def _cosine(left: FloatArray, right: FloatArray) -> float:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
