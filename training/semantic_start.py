"""Where the rows of item tokens begin, if not at random: at what the vectors of their items have in common.

The vector of an item is taken as the sum of its tokens, level by level: a first token begins at the mean of its items,
a next one at the mean of what is left of theirs, and so on, as residual quantisation made the codes. So a model knows
from its first step which items are alike, rare ones too. Knows arrays; no model and no file.
"""

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

FloatArray = npt.NDArray[np.float32]

NOISE = 0.1
"""As a share of the spread: codes whose items have nothing in common, as in a collision level, must not begin equal."""


def semantic_rows(
    vectors: FloatArray, paths: npt.NDArray[np.integer], width: int, spread: float, seed: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """A row for every item token that an item has.

    Args:
        vectors: (N, D) float32, of the items.
        paths: (N, L) token ids of each item.
        width: Of a row. The vectors are projected on so many of their principal axes, or padded with zeros.
        spread: Standard deviation over all items and axes.
        seed: Of the noise.

    Returns:
        (T,) int64 token ids, and their (T, width) float32 rows.
    """
    noise = np.random.default_rng(seed)
    rest = _projected(vectors, width)
    rest *= spread / max(float(rest.std()), np.finfo(np.float64).tiny)
    ids, rows = [], []
    for tokens in paths.T:
        used, place, counts = np.unique(tokens, return_inverse=True, return_counts=True)
        mean = np.zeros((len(used), width))
        np.add.at(mean, place, rest)
        mean /= counts[:, None]
        rest -= mean[place]
        ids.append(used.astype(np.int64))
        rows.append(mean + noise.normal(scale=NOISE * spread, size=mean.shape))
    return np.concatenate(ids), np.concatenate(rows).astype(np.float32)


def _projected(vectors: FloatArray, width: int) -> npt.NDArray[np.float64]:
    """(N, width) on the principal axes, the widest first."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # One thread: sums in another order differ in the last bits.
    with threadpool_limits(limits=1):
        _, axes = np.linalg.eigh(centred.T @ centred)  # (D, D), ascending: N may be millions
        projected = centred @ axes[:, ::-1][:, :width]
    return np.pad(projected, ((0, 0), (0, width - projected.shape[1])))
