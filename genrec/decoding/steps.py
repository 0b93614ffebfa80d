"""A model walked one level at a time, one prompt, for those who want to see what a search compares.

Shapes: W beams, n tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from genrec.decoding.decoder import Decoder
from genrec.decoding.padding import pad_prompts
from genrec.decoding.scoring import path_distributions
from genrec.model_inputs import NO_INPUTS, ModelInputs

Tokens = npt.NDArray[np.integer]

_READ_AT_ONCE = 32
"""Whole paths fed together: each has logits of its own at every level."""


class DecoderSteps:
    """`genrec.decoding.engine.Steps` by a decoder: the very calls that the beam engine makes."""

    @torch.inference_mode()
    def __init__(
        self,
        decoder: Decoder[Any],
        levels: Sequence[torch.Tensor],
        prompt: Sequence[int],
        num_slots: int,
        device: torch.device,
    ) -> None:
        """Reads the prompt.

        Args:
            decoder: the model.
            levels: for each level its distinct token ids, ascending.
            prompt: token ids of the history.
            num_slots: the widths of all steps to come, summed.
            device: where the model is.
        """
        self._decoder = decoder
        self._levels = levels
        self._device = device
        self._level = 0
        self._progress, self._hidden = decoder.prefill(pad_prompts([prompt], left=False, device=device), num_slots)

    @torch.inference_mode()
    def log_probs(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """See `Steps`."""
        columns = torch.searchsorted(self._levels[self._level], self._tensor(tokens))
        found: npt.NDArray[np.float32] = (
            self._decoder.head.log_probs(self._hidden, self._level).index_select(1, columns).cpu().numpy()
        )
        return found

    @torch.inference_mode()
    def step(self, tokens: Tokens, parents: Tokens) -> None:
        """See `Steps`."""
        self._hidden = self._decoder.step(self._progress, self._tensor(tokens)[None], self._tensor(parents)[None])
        self._level += 1

    def _tensor(self, numbers: Tokens) -> torch.Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._device)


class ModelSteps:
    """`genrec.decoding.engine.Steps` by any model: every prefix is fed whole, prompt and all, each time."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: Sequence[int],
        decoder_prefix_ids: Sequence[int],
        inputs: ModelInputs = NO_INPUTS,
    ) -> None:
        """Nothing is computed before it is asked for.

        Args:
            model: in eval mode.
            prompt: token ids of the history.
            decoder_prefix_ids: what the decoder starts with; unused by a decoder-only model.
            inputs: what the model takes beside ids and mask.
        """
        self._model = model
        self._prompt = prompt
        self._decoder_prefix_ids = decoder_prefix_ids
        self._inputs = inputs
        self._prefixes: list[list[int]] = [[]]

    def log_probs(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """See `Steps`."""
        columns = torch.from_numpy(tokens.astype(np.int64)).to(self._model.device)
        found = []
        for start in range(0, len(self._prefixes), _READ_AT_ONCE):
            # The last token of a path is predicted and never read, so any will do.
            paths = [[*prefix, 0] for prefix in self._prefixes[start : start + _READ_AT_ONCE]]
            prompts = [self._prompt] * len(paths)
            read = path_distributions(self._model, prompts, paths, self._decoder_prefix_ids, self._inputs)
            found.append(read[:, -1].index_select(1, columns).cpu().numpy())
        return np.concatenate(found)

    def step(self, tokens: Tokens, parents: Tokens) -> None:
        """See `Steps`."""
        pairs = zip(tokens.tolist(), parents.tolist(), strict=True)
        self._prefixes = [[*self._prefixes[parent], token] for token, parent in pairs]
