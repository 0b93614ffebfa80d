"""The mean of the weights of several checkpoints, as far as it is better on validation than the best one alone.

A greedy soup (Wortsman et al. 2022): from the best checkpoint on, each next one is taken into the mean if validation
gets better by it, so the result is never worse than the best. Only what was trained is averaged; of LoRA, its two
matrices. Knows neither what a checkpoint holds nor how validation is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Soup:
    """What was averaged.

    Attributes:
        members: The checkpoints in the mean, best first; one alone was better than any mean with it.
        scores: Of the best alone, and of the mean after each member was taken in; more is better.
        tried: How many checkpoints were looked at, the best included.
    """

    members: tuple[Path, ...]
    scores: tuple[float, ...]
    tried: int


def stir(
    model: nn.Module, checkpoints: Sequence[Path], *, load: Callable[[Path], None], score: Callable[[], float]
) -> Soup:
    """Leave `model` with the mean of as many checkpoints as validation agrees to.

    Args:
        model: What is averaged: its parameters that require a gradient.
        checkpoints: Best first, at least one.
        load: Puts the weights of a checkpoint into the model.
        score: How good the model is now on validation, more is better.
    """
    load(checkpoints[0])
    mean, members, scores = _read(model), [checkpoints[0]], [score()]
    for checkpoint in checkpoints[1:]:
        load(checkpoint)
        share = 1.0 / (len(members) + 1)
        mixed = {name: torch.lerp(mean[name], weight, share) for name, weight in _read(model).items()}
        _write(model, mixed)
        found = score()
        if found > scores[-1]:
            mean, members, scores = mixed, [*members, checkpoint], [*scores, found]
    _write(model, mean)
    return Soup(tuple(members), tuple(scores), len(checkpoints))


def _read(model: nn.Module) -> Weights:
    """In double precision: the mean of equal weights is these weights."""
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    return {name: weight.detach().to("cpu", torch.float64, copy=True) for name, weight in trained}


@torch.no_grad()
def _write(model: nn.Module, weights: Weights) -> None:
    for name, weight in model.named_parameters():
        if name in weights:
            weight.copy_(weights[name])
