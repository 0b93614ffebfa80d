"""Which decoder reads which model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from genrec.decoding import llama, t5
from genrec.decoding.decoder import Decoder
from genrec.decoding.forward import ForwardDecoder
from genrec.decoding.llama import LlamaDecoder
from genrec.decoding.t5 import T5Decoder


def decoder_of(
    model: PreTrainedModel, decoder_prefix_ids: Sequence[int], levels: Sequence[Tensor], longest: int
) -> Decoder[Any] | None:
    """The fastest decoder that gives exactly what the model gives, or None if there is none.

    Args:
        model: in eval mode, on its device.
        decoder_prefix_ids: what the decoder starts with; empty for a decoder-only model.
        levels: for each level its token ids, ascending, int64 on the model's device.
        longest: the most tokens a prompt and an item can have together.
    """
    if t5.reads(model):
        return T5Decoder(model, decoder_prefix_ids, levels)
    if model.config.is_encoder_decoder or not _sees_everything(model.config, longest):
        return None
    if llama.reads(model):
        return LlamaDecoder(model, levels)
    decoder = ForwardDecoder(model, levels)
    try:
        every = torch.cat(list(levels))  # a level may have one token only, and beams that are alike prove nothing
        proven = decoder.proves_itself([int(every.min()), int(every.max())])
    except Exception:  # noqa: BLE001  nobody knows what an unknown architecture makes of such a mask and cache
        return None
    return decoder if proven else None


def _sees_everything(config: PreTrainedConfig, longest: int) -> bool:
    """Whether no attention window is shorter than the longest sequence."""
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_window_size", "window_size"))
    return all(not isinstance(window, int) or window >= longest for window in windows)
