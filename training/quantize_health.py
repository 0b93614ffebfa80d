"""How good semantic IDs are: how evenly codes are used, what the clusters hold, and whether that is good enough.

Knows codes and titles. Knows nothing of vectors or histories. Shapes: N items, L levels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genrec.errors import TrainingError
from training.quantizer import CodeArray
from training.recipe_quantize import Gates

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


def level_health(codes: CodeArray, sizes: Sequence[int]) -> list[dict[str, float]]:
    """One row of figures a level.

    `utilisation` and `entropy_share` are shares of what so many items can reach: 100 items use at most 100 codes.
    `perplexity` is how many equally frequent codes would have the same entropy.
    """
    rows: list[dict[str, float]] = []
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        reachable, used, entropy = min(size, len(codes)), int((counts > 0).sum()), entropy_bits(counts)
        rows.append(
            {
                "level": level,
                "size": size,
                "codes_used": used,
                "dead_codes": size - used,
                "utilisation": round(used / reachable, 4),
                "entropy_bits": round(entropy, 4),
                "entropy_share": round(entropy / np.log2(reachable), 4) if reachable > 1 else 1.0,
                "perplexity": round(2**entropy, 2),
                "gini": round(gini(counts), 4),
            }
        )
    return rows


def prefix_health(codes: CodeArray) -> list[dict[str, float]]:
    """One row a depth: how many prefixes of so many codes are in use, and how many items the fullest has."""
    rows: list[dict[str, float]] = []
    for depth in range(1, codes.shape[1] + 1):
        counts = np.unique(codes[:, :depth], axis=0, return_counts=True)[1]
        largest = int(counts.max())
        rows.append(
            {
                "first_codes": depth,
                "prefixes_used": len(counts),
                "items_of_a_prefix": round(len(codes) / len(counts), 2),
                "items_of_the_fullest": largest,
                "share_of_the_fullest": round(largest / len(codes), 4),
            }
        )
    return rows


def check_gates(gates: Gates, made: CodeArray, sizes: Sequence[int], report: Path) -> None:
    """Stop a run whose codes are not worth training a model on.

    Args:
        gates: Of the recipe.
        made: (N, L) codes as the method made them, before collisions were resolved.
        sizes: L code counts.
        report: Where the figures are, for the sentence.

    Raises:
        TrainingError: A gate is not passed.
    """
    failed = list(_failures(gates, made, sizes))
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise TrainingError(
            f"{failed[0]}, or loosen the gate if these codes are what you want{more}. Figures: {report}"
        )


def _failures(gates: Gates, made: CodeArray, sizes: Sequence[int]) -> Iterator[str]:
    for row in level_health(made, sizes):
        if row["utilisation"] < gates.min_utilisation:
            yield (
                f"level {row['level']} uses {row['codes_used']} of its {row['size']} codes, a utilisation of "
                f"{row['utilisation']}, below quantize.gates.min_utilisation = {gates.min_utilisation}: the codebook "
                "has collapsed or is too large; use smaller quantize.codebook_sizes or quantize.method = "
                '"residual_kmeans"'
            )
        if row["entropy_share"] < gates.min_entropy:
            yield (
                f"the codes of level {row['level']} have {row['entropy_share']} of the most possible entropy, below "
                f"quantize.gates.min_entropy = {gates.min_entropy}: a few codes have most items; {_SPREAD}"
            )
    fullest = prefix_health(made)[0]
    if fullest["share_of_the_fullest"] > gates.max_first_code_share:
        yield (
            f"{fullest['items_of_the_fullest']:,} items have one code of level 0, a share of "
            f"{fullest['share_of_the_fullest']}, above quantize.gates.max_first_code_share = "
            f"{gates.max_first_code_share}; {_SPREAD}"
        )
    counts = np.unique(made, axis=0, return_counts=True)[1]
    share = float(counts[counts > 1].sum() / len(made))
    if share > gates.max_collision_share:
        yield (
            f"a share of {share:.4f} of the items has all codes of levels 0 to {len(sizes) - 1} in common with another "
            f"item, above quantize.gates.max_collision_share = {gates.max_collision_share}; use larger "
            "quantize.codebook_sizes, more levels or vectors that differ more"
        )


_SPREAD = 'use vectors that differ more or quantize.method = "balanced_kmeans"'


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
