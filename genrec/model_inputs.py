"""What a model is given beside token ids and mask, where its family asks for more.

It follows from the padded ids alone, so nobody has to carry it: whoever runs a model fills it in right before. Knows no
model and no family.

Shapes: B prompts, T tokens, padding included.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from genrec.errors import EngineError
from genrec.item_tokens import ItemTokens


@dataclass(frozen=True, eq=False)
class TokenLevels:
    """Which tokens are item tokens, and of which level.

    Attributes:
        item_tokens: the same with codes.
    """

    item_tokens: ItemTokens
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_levels(self) -> int:
        """L, how many tokens one item has."""
        return self.item_tokens.num_levels

    def of(self, input_ids: Tensor) -> Tensor:
        """``(B, T)`` int64: the level of each item token, from 0; -1 for every other token."""
        table = self._on(input_ids.device)
        return table[input_ids.clamp(max=len(table) - 1)]

    def _on(self, device: torch.device) -> Tensor:
        # kept: a CUDA graph reads the one it was recorded with
        if device not in self._tables:
            table = np.full(self.item_tokens.highest_id + 2, -1, dtype=np.int64)  # the last is of all ids above
            for level, ids in enumerate(self.item_tokens.token_ids):
                table[list(ids)] = level
            self._tables[device] = torch.from_numpy(table).to(device)
        return self._tables[device]


Fill = Callable[[Tensor, Tensor, TokenLevels], Mapping[str, Tensor]]
"""A family's rule: token ids ``(B, T)`` int64, mask ``(B, T)`` int64 and the item tokens -> inputs ``(B, T)`` int64."""


def fill_nothing(input_ids: Tensor, attention_mask: Tensor, levels: TokenLevels) -> Mapping[str, Tensor]:
    """The `Fill` of a model that takes ids and mask alone."""
    return {}


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """The extra inputs of one model.

    Attributes:
        names: what its `forward` calls them; none for plain models.
        fill: how they follow from the ids.
        levels: of the item tokens it was trained with.
    """

    names: tuple[str, ...]
    fill: Fill
    levels: TokenLevels

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The inputs of padded prompts, by name.

        Args:
            input_ids: ``(B, T)`` int64, padded on either side.
            attention_mask: ``(B, T)`` int64, 1 where there is a token.

        Returns:
            ``(B, T)`` int64 each, on the device of the ids.

        Raises:
            EngineError: the plug-in's function gives others than it promised.
        """
        filled = dict(self.fill(input_ids, attention_mask, self.levels))
        wrong = sorted(filled.keys() ^ set(self.names)) or [
            name for name, tensor in filled.items() if tensor.shape != input_ids.shape or tensor.dtype != torch.int64
        ]
        if wrong:
            raise EngineError(
                f"the model's plug-in must fill {list(self.names)}, each int64 and of the shape of the token ids, and "
                f"does otherwise for {wrong[0]!r}; mend its fill function."
            )
        return filled


NO_INPUTS = ModelInputs((), fill_nothing, TokenLevels(ItemTokens(((0,),))))
"""Of plain models, whatever their item tokens are."""
