"""Which decoder reads which model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from genrec.decoding import llama, t5
from genrec.decoding.decoder import Decoder
from genrec.decoding.forward import ForwardDecoder
from genrec.decoding.llama import LlamaDecoder
from genrec.decoding.steps import DecoderSteps, ModelSteps
from genrec.decoding.t5 import T5Decoder
from genrec.model_inputs import NO_INPUTS, ModelInputs

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""How far log-probabilities of the proof may lie apart, as a share of the largest: rounding, and no more."""


def decoder_of(
    model: PreTrainedModel,
    decoder_prefix_ids: Sequence[int],
    levels: Sequence[Tensor],
    longest: int,
    inputs: ModelInputs = NO_INPUTS,
) -> Decoder[Any] | None:
    """The fastest decoder that gives exactly what the model gives, or None if there is none.

    Args:
        model: in eval mode, on its device.
        decoder_prefix_ids: what the decoder starts with; empty for a decoder-only model.
        levels: for each level its token ids, ascending, int64 on the model's device.
        longest: the most tokens a prompt and an item can have together.
        inputs: what the model takes beside ids and mask.
    """
    if t5.reads(model):
        return _t5_decoder(model, decoder_prefix_ids, levels, inputs)
    if model.config.is_encoder_decoder or not _sees_everything(model.config, longest):
        return None
    if llama.reads(model):
        return LlamaDecoder(model, levels)
    return forward_decoder(model, levels)


def forward_decoder(model: PreTrainedModel, levels: Sequence[Tensor]) -> ForwardDecoder | None:
    """A decoder-only model through its own forward, adapters and all, or None if it does not keep to masks."""
    decoder = ForwardDecoder(model, levels)
    try:
        every = torch.cat(list(levels))  # a level may have one token only, and beams that are alike prove nothing
        proven = decoder.proves_itself([int(every.min()), int(every.max())])
    except Exception:  # noqa: BLE001  nobody knows what an unknown architecture makes of such a mask and cache
        return None
    return decoder if proven else None


def _t5_decoder(
    model: PreTrainedModel, decoder_prefix_ids: Sequence[int], levels: Sequence[Tensor], inputs: ModelInputs
) -> T5Decoder | None:
    if t5.is_plain(model):
        return T5Decoder(model, decoder_prefix_ids, levels)
    try:
        decoder = T5Decoder(model, decoder_prefix_ids, levels, inputs)
        # three items of the first and last tokens of their levels, and the same two as beams
        ends = [tokens[[0, -1]].cpu().numpy() for tokens in levels]
        prompt = [int(end[which]) for which in (0, 1, 0) for end in ends]
        ours = DecoderSteps(decoder, levels, prompt, 2 * len(levels), model.device)
        theirs = ModelSteps(model, prompt, decoder_prefix_ids, inputs)
        for level, tokens in enumerate(levels):
            read, expected = (steps.log_probs(tokens.cpu().numpy()) for steps in (ours, theirs))
            if not np.abs(read - expected).max() < _TOLERANCE[model.dtype] * np.abs(expected).max():
                return None
            parents = np.array([0, min(level, 1)])
            ours.step(ends[level], parents)
            theirs.step(ends[level], parents)
    except Exception:  # noqa: BLE001  nobody knows what an unknown subclass makes of it
        return None
    return decoder


def _sees_everything(config: PreTrainedConfig, longest: int) -> bool:
    """Whether no attention window is shorter than the longest sequence."""
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_window_size", "window_size"))
    return all(not isinstance(window, int) or window >= longest for window in windows)
