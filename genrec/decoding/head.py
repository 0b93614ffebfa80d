"""From hidden states to log-probabilities of a level's tokens, normalised over the full vocabulary.

Shapes: N rows, I hidden size, V vocabulary, C tokens of a level.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Rows of logits in memory at once: 64 keep a product busy (linear.py), and more are taken while they fit in 32 MB.
_MIN_ROWS = 64
_CHUNK_BYTES = 32 << 20


class Head:
    """The output layer of a model."""

    def __init__(
        self, logits: Callable[[Tensor], Tensor], vocab_size: int, levels: Sequence[Tensor], scale: float = 1.0
    ) -> None:
        """Nothing is copied.

        Args:
            logits: hidden states to logits.
            vocab_size: V.
            levels: for each level its token ids, ascending, int64 on the model's device.
            scale: what hidden states are multiplied by first (T5 with tied embeddings).
        """
        self._logits = logits
        self._rows = max(_MIN_ROWS, _CHUNK_BYTES // (4 * vocab_size))
        self._scale = scale
        self._pick = [_picker(tokens) for tokens in levels]

    def log_probs(self, hidden: Tensor, level: int) -> Tensor:
        """``(N, C)`` float32 log-softmax over the vocabulary at the level's tokens, as Hugging Face scores them.

        At most `_rows` rows of logits exist at once, so a batch of wide beams over a large vocabulary stays small.
        """
        if self._scale != 1.0:
            hidden = hidden * self._scale
        chunks = [self._chunk(part, level) for part in torch.split(hidden, self._rows)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _chunk(self, hidden: Tensor, level: int) -> Tensor:
        return self._pick[level](self._logits(hidden).float().log_softmax(dim=-1))


def _picker(tokens: Tensor) -> Callable[[Tensor], Tensor]:
    # Item tokens are added together, so a level is nearly always one run of ids, and a slice needs no copy.
    first, count = int(tokens[0]), len(tokens)
    if int(tokens[-1]) - first + 1 == count:
        return lambda log_probs: log_probs[:, first : first + count]
    return lambda log_probs: log_probs.index_select(1, tokens)
