"""Prompts of different lengths as one tensor."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Padded(NamedTuple):
    """R prompts of at most T tokens."""

    ids: torch.Tensor  # (R, T) int64; 0 where there is no token
    mask: torch.Tensor  # (R, T) int64; 1 where there is one


def pad_prompts(prompts: Sequence[Sequence[int]], *, left: bool, device: torch.device | str = "cpu") -> Padded:
    """Pad to the longest prompt: on the left for generation by a decoder, on the right for an encoder."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if left else slice(0, len(prompt))
        ids[row, place] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, place] = 1
    return Padded(ids.to(device), mask.to(device))
