"""Whether items that belong together share codes: those near in vector space, and those that follow each other.

Knows codes, vectors and histories. Shapes: N items, L levels, n pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.quantizer import CodeArray, FloatArray

ITEMS_ASKED = 1000
NEIGHBOURS = 10
PAIRS = 100_000

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Items that belong together.

    Attributes:
        left: (n,) rows.
        right: (n,) rows.
    """

    left: Rows
    right: Rows

    def shared(self, codes: CodeArray) -> list[float]:
        """L shares: of the pairs, how many have the first code in common, the first two, …."""
        alike = np.cumprod(codes[self.left] == codes[self.right], axis=1)
        shares: list[float] = alike.mean(axis=0).round(4).tolist()
        return shares

    def shuffled(self, seed: int) -> "Pairs":
        """The same items in pairs by chance: what sharing a code means when nothing belongs together."""
        rng = np.random.default_rng(seed)
        places = rng.integers(len(self.left), size=(2, PAIRS))
        left, right = self.left[places[0]], self.right[places[1]]
        other = left != right
        return Pairs(left[other], right[other]) if other.any() else self


def nearest_pairs(vectors: FloatArray, seed: int) -> Pairs | None:
    """Up to 1,000 items, each with its 10 nearest by cosine; None where there are no vectors to compare."""
    filled = np.flatnonzero(vectors.any(axis=1))
    if len(filled) < 2:
        return None
    unit = vectors[filled] / np.linalg.norm(vectors[filled], axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.choice(len(filled), min(ITEMS_ASKED, len(filled)), replace=False))
    near = min(NEIGHBOURS, len(filled) - 1)
    likeness = unit[asked] @ unit.T
    likeness[np.arange(len(asked)), asked] = -np.inf
    found = np.argsort(-likeness, axis=1, kind="stable")[:, :near]
    return Pairs(np.repeat(filled[asked], near), filled[found].ravel())


def following_pairs(sequences: Sequence[npt.NDArray[np.int32]], seed: int) -> Pairs | None:
    """Different items next to each other in training histories, at most 100,000 pairs; None if there is none."""
    left = np.concatenate([*(sequence[:-1] for sequence in sequences), np.empty(0, dtype=np.int32)]).astype(np.int64)
    right = np.concatenate([*(sequence[1:] for sequence in sequences), np.empty(0, dtype=np.int32)]).astype(np.int64)
    other = np.flatnonzero(left != right)
    if not len(other):
        return None
    if len(other) > PAIRS:
        other = np.sort(np.random.default_rng(seed).choice(other, PAIRS, replace=False))
    return Pairs(left[other], right[other])


def sharing(codes: CodeArray, pairs: Mapping[str, Pairs | None], seed: int) -> list[dict[str, float]]:
    """One row a depth: for each kind of pair, the share that has so many first codes in common, and that by chance.

    Args:
        codes: (N, L).
        pairs: Kind → pairs, such as ``nearest``; a kind without pairs is left out.
        seed: Of chance.
    """
    rows: list[dict[str, float]] = [{"first_codes": depth} for depth in range(1, codes.shape[1] + 1)]
    for kind, found in pairs.items():
        if found is not None:
            shares = zip(rows, found.shared(codes), found.shuffled(seed).shared(codes), strict=True)
            for row, share, chance in shares:
                row |= {kind: share, f"{kind}_by_chance": chance}
    return rows if len(rows[0]) > 1 else []
