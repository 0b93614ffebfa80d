"""The trie where the model is: for each node its range of children, for each child its token.

Shapes: n_l nodes of level l (n_0 = 1), L levels, N = n_L items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genrec.trie import ItemTrie


@dataclass(frozen=True, eq=False)
class DeviceTrie:
    """CSR arrays as tensors. Child ids are positions, so they need no storage (`genrec.trie`).

    Attributes:
        indptr: L tensors ``(n_l + 1,)`` int32.
        column: L tensors ``(n_{l+1},)``, int16 where it fits: which of the level's tokens leads to each node.
        tokens: L tensors ``(C_l,)`` int64, the level's distinct token ids, ascending.
        places: L tensors ``(K_l,)`` int32, 0 to the most children of any node of the level.
    """

    indptr: Sequence[Tensor]
    column: Sequence[Tensor]
    tokens: Sequence[Tensor]
    places: Sequence[Tensor]

    @classmethod
    def of(cls, trie: ItemTrie, device: torch.device | str) -> "DeviceTrie":
        """Copy to `device`; on CPU `indptr` stays where it is."""
        tokens = [np.unique(level) for level in trie.token]
        return cls(
            [torch.from_numpy(level).to(device) for level in trie.indptr],
            [_column(level, known).to(device) for level, known in zip(trie.token, tokens, strict=True)],
            [torch.from_numpy(known.astype(np.int64)).to(device) for known in tokens],
            [torch.arange(int(np.diff(level).max()), dtype=torch.int32, device=device) for level in trie.indptr],
        )

    @property
    def widest(self) -> list[int]:
        """K_l, the most children of any node of each level."""
        return [len(level) for level in self.places]

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.indptr)

    def num_nodes(self, level: int) -> int:
        """n_l."""
        return 1 if level == 0 else len(self.column[level - 1])

    def token_of(self, level: int, children: Tensor) -> Tensor:
        """The token ids that lead to nodes of level + 1, int64."""
        return self.tokens[level][self.column[level][children].long()]

    @property
    def num_bytes(self) -> int:
        """What it takes on the device."""
        return sum(part.nbytes for parts in (self.indptr, self.column, self.tokens) for part in parts)


def _column(tokens: np.ndarray, known: np.ndarray) -> Tensor:
    smallest = np.int16 if len(known) <= np.iinfo(np.int16).max else np.int32
    return torch.from_numpy(np.searchsorted(known, tokens).astype(smallest))
