"""Prompts of different lengths as one tensor."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch


class Padded(NamedTuple):
    """R prompts of at most T tokens."""

    ids: torch.Tensor  # (R, T) int64; 0 where there is no token
    mask: torch.Tensor  # (R, T) int64; 1 where there is one
    ragged: bool  # whether any is shorter than T


def pad_prompts(prompts: Sequence[Sequence[int]], *, left: bool, device: torch.device | str = "cpu") -> Padded:
    """Pad to the longest prompt: on the left for generation by a decoder, on the right for an encoder."""
    lengths = np.array([len(prompt) for prompt in prompts])[:, None]
    width = int(lengths.max())
    places = np.arange(width)
    mask = places >= width - lengths if left else places < lengths
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in prompts])
    as_tensor = torch.from_numpy
    return Padded(as_tensor(ids).to(device), as_tensor(mask.astype(np.int64)).to(device), not bool(mask.all()))
