"""Any decoder-only model, through its own forward: beams as queries by a 4-D mask and position ids.

Slower than a decoder that reads the weights (`genrec.decoding.llama`), but still one prefill a request and no copies of
beams. Not every architecture keeps to masks and positions as they are given, so one must prove itself first.

Shapes: R requests, W beams, T prompt tokens, S slots, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from genrec.decoding.beam_cache import BeamCache
from genrec.decoding.head import Head
from genrec.decoding.padding import Padded, pad_prompts

_TOLERANCE = 1e-3
"""How far the logits of the proof may lie apart; a mask that is ignored moves them by a hundred times that."""


@dataclass
class ForwardProgress:
    """What a batch remembers.

    Attributes:
        past: keys and values, kept by the model's own cache.
        slots: of which only the mask is used.
        lengths: ``(R, 1)`` int64, of the prompts.
        positions: ``(R, 1)`` int64, of the next token.
    """

    past: DynamicCache
    slots: BeamCache
    lengths: Tensor
    positions: Tensor

    def rewind(self) -> None:
        """See `Progress`."""
        self.slots.rewind()
        self.past.crop(self.slots.filled - self.past.get_seq_length())  # negative: how many to take away
        self.positions = self.lengths


class ForwardDecoder:
    """A causal model of any architecture. Its hidden states are the logits themselves.

    Attributes:
        head: see `Decoder`.
    """

    def __init__(self, model: PreTrainedModel, levels: Sequence[Tensor]) -> None:
        """Nothing is copied.

        Args:
            model: a causal model in eval mode.
            levels: for each level its token ids, as `Head` takes them.
        """
        self._model: Any = model
        self.head = Head(lambda logits: logits, model.get_output_embeddings().weight.shape[0], levels)

    def prefill(self, prompts: Padded, num_slots: int) -> tuple[ForwardProgress, Tensor]:
        """See `Decoder`. The padding moves to the left, so that every prompt ends at the last place."""
        rows, length = prompts.ids.shape
        lengths = prompts.mask.sum(dim=1, keepdim=True)
        places = torch.arange(length, device=lengths.device)[None] - (length - lengths)
        ids = prompts.ids.gather(1, places % length)
        # Not by the config: a layer with a window would drop the oldest slots, and slots are more than positions.
        past = DynamicCache()
        out = self._model(
            input_ids=ids,
            attention_mask=(places >= 0).long() if prompts.ragged else None,
            position_ids=places.clamp(min=0),
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        )
        padding = torch.zeros(rows, length, dtype=self._model.dtype, device=ids.device)
        padding.masked_fill_(places < 0, -torch.inf)
        return ForwardProgress(past, BeamCache((), padding[:, None]), lengths, lengths), out.logits[:, -1]

    def step(self, progress: ForwardProgress, tokens: Tensor, parents: Tensor) -> Tensor:
        """See `Decoder`."""
        progress.slots.branch(parents)
        out = self._model(
            input_ids=tokens,
            attention_mask=progress.slots.mask[:, None],
            position_ids=progress.positions.expand_as(tokens),
            past_key_values=progress.past,
            use_cache=True,
        )
        progress.positions = progress.positions + 1
        logits: Tensor = out.logits.flatten(0, 1)
        return logits

    @torch.inference_mode()
    def proves_itself(self, tokens: Sequence[int]) -> bool:
        """Whether beams that share a cache give the logits that each of them gives alone.

        Args:
            tokens: at least two of the model's token ids, to make prompts of.
        """
        first, second = tokens[0], tokens[-1]
        prompts = [[first, second, first], [second]]
        alone = [self._alone([*prompt, *beam]) for prompt in prompts for beam in ([first, second], [second, second])]
        progress, _ = self.prefill(pad_prompts(prompts, left=False, device=self._model.device), num_slots=4)
        start = torch.tensor([[first, second]] * 2, device=self._model.device)
        self.step(progress, start, torch.zeros_like(start))
        together = self.step(progress, torch.full_like(start, second), torch.tensor([[0, 1]] * 2, device=start.device))
        return bool((torch.stack(alone) - together).abs().max() < _TOLERANCE * together.abs().max())

    def _alone(self, ids: Sequence[int]) -> Tensor:
        logits: Tensor = self._model(input_ids=torch.tensor([ids], device=self._model.device)).logits[0, -1]
        return logits
