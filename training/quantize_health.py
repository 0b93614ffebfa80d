"""How good semantic IDs are: how evenly codes are used, and what the clusters hold.

Knows codes and titles. Shapes: N items, L levels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.quantizer import CodeArray

CLUSTERS_SHOWN = 5
TITLES_SHOWN = 8


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Entropy of the code distribution in bits; at most log2 of the number of codes."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of the counts, unused codes included: 0 when all are equal, towards 1 when one has all."""
    ordered = np.sort(counts).astype(np.float64)
    ranks = np.arange(1, len(ordered) + 1)
    return float(2 * (ranks * ordered).sum() / (len(ordered) * ordered.sum()) - (len(ordered) + 1) / len(ordered))


def level_health(codes: CodeArray, sizes: Sequence[int]) -> list[dict[str, object]]:
    """One row of figures a level: size, codes used, entropy and its share of the most possible, Gini."""
    rows: list[dict[str, object]] = []
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        entropy = entropy_bits(counts)
        rows.append(
            {
                "level": level,
                "size": size,
                "codes_used": int((counts > 0).sum()),
                "entropy_bits": round(entropy, 4),
                "entropy_share": round(entropy / np.log2(size), 4) if size > 1 else 1.0,
                "gini": round(gini(counts), 4),
            }
        )
    return rows


def clusters(
    codes: CodeArray, titles: Sequence[str], popularity: npt.NDArray[np.int64], depth: int
) -> list[dict[str, object]]:
    """The largest groups of items that share their first `depth` codes, each with its most popular titles."""
    prefixes, groups, sizes = np.unique(codes[:, :depth], axis=0, return_inverse=True, return_counts=True)
    groups = groups.reshape(-1)
    rows: list[dict[str, object]] = []
    for group in np.argsort(-sizes, kind="stable")[:CLUSTERS_SHOWN]:
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(-popularity[members], kind="stable")]
        shown = [titles[row] for row in members[:TITLES_SHOWN]]
        rows.append({"codes": prefixes[group].tolist(), "items": int(sizes[group]), "titles": shown})
    return rows
