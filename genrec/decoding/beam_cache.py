"""Keys and values of a batch whose beams share their beginning: written once, never copied.

All beams of a request are queries over one set of slots: first the common prefix, then one slot for each beam of each
step. Which slots a beam descends from is a small mask; beams that are reordered reorder the mask, not the cache. After
tree attention (DeFT, arXiv:2404.00242), exact: each softmax runs over the same keys as with a cache of its own.

Shapes: R requests, W beams, S slots, T prefix tokens, G key-value heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class BeamCache:
    """One batch on its way through the levels.

    Attributes:
        layers: for each layer ``(R, S_max, 2, G, D)``, keys and values.
        mask: ``(R, W, S)``, 0 for the slots that a beam descends from, -inf for the others; as wide as it is filled.
        filled: slots in use by all layers.
        prefix_mask: ``(R, 1, T)``, what `mask` was before the first step.
    """

    layers: Sequence[Tensor]
    mask: Tensor
    filled: int = 0
    prefix_mask: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.prefix_mask = self.mask

    def rewind(self) -> None:
        """Forget the beams, keep the prefix."""
        self.mask = self.prefix_mask
        self.filled = self.prefix_mask.shape[2]

    @classmethod
    def allocate(
        cls, num_layers: int, prefix_mask: Tensor, num_slots: int, num_heads: int, head_size: int
    ) -> "BeamCache":
        """Room for the prefix and `num_slots` beams' tokens.

        Args:
            num_layers: how many layers keep keys and values.
            prefix_mask: ``(R, T)``, 0 for a token and -inf for padding; of the model's dtype.
            num_slots: the widths of all steps to come, summed.
            num_heads: G.
            head_size: D.
        """
        rows, prefix = prefix_mask.shape
        shape = (rows, prefix + num_slots, 2, num_heads, head_size)
        return cls([prefix_mask.new_empty(shape) for _ in range(num_layers)], prefix_mask[:, None, :])

    def branch(self, parents: Tensor) -> None:
        """Let the beams that follow descend from `parents`, ``(R, W)`` places of those before, and see themselves."""
        rows, width = parents.shape
        inherited = self.mask.gather(1, parents[:, :, None].expand(rows, width, self.mask.shape[2]))
        own = self.mask.new_full((width, width), -torch.inf).fill_diagonal_(0.0)
        self.mask = torch.cat([inherited, own.expand(rows, width, width)], dim=2)

    def write(self, layer: int, keys_values: Tensor) -> None:
        """Put the keys and values of new tokens, ``(R, tokens, 2, G, D)``, behind what is filled."""
        self.layers[layer][:, self.filled : self.filled + keys_values.shape[1]].copy_(keys_values)

    def read(self, layer: int, num_new: int) -> tuple[Tensor, Tensor]:
        """Keys and values, each ``(R, G, S, D)``, the `num_new` slots just written included."""
        keys, values = self.layers[layer][:, : self.filled + num_new].permute(2, 0, 3, 1, 4).unbind(0)
        return keys, values
