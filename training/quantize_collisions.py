"""Making semantic IDs unique: other last codes, or one more level, where items share their codes.

Knows codes, popularity and ids. Knows nothing of how codes were made. Shapes: N items, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from genrec.errors import DataError
from training.quantizer import CodeArray, FloatArray

MAX_COLLISION_CODES = 1024
"""The codes of this level mean nothing and are learnt by heart; so many are no semantic ID any more."""


@dataclass(frozen=True, slots=True)
class Collisions:
    """How many items share a semantic ID.

    Attributes:
        items: Items that share theirs with another.
        groups: Semantic IDs that several items share.
        largest: Items in the largest group; 1 if none share.
    """

    items: int
    groups: int
    largest: int


def group_of(codes: CodeArray) -> npt.NDArray[np.int64]:
    """(N,) number of each item's group: items with equal codes."""
    _, groups = np.unique(codes, axis=0, return_inverse=True)
    return groups.reshape(-1).astype(np.int64)


def count_collisions(codes: CodeArray) -> Collisions:
    """Count items that share their codes."""
    sizes = np.bincount(group_of(codes))
    shared = sizes[sizes > 1]
    return Collisions(items=int(shared.sum()), groups=len(shared), largest=int(sizes.max()))


def reassign_last_code(codes: CodeArray, vectors: FloatArray, codebooks: Sequence[FloatArray]) -> tuple[CodeArray, int]:
    """Give items that share all codes different codes of the last level, at the least total distance.

    Within each prefix this is an assignment problem between items and the last codebook's centroids, solved exactly. A
    prefix with more items than that codebook has codes is left as it is, for a collision level.

    Args:
        codes: (N, L) int32 of residual k-means.
        vectors: (N, D) what was quantized.
        codebooks: L arrays (size, D).

    Returns:
        (N, L) int32, and how many items have another code than before.
    """
    residual = vectors - sum((book[codes[:, level]] for level, book in enumerate(codebooks[:-1])), np.float32(0))
    last = codes[:, -1].copy()
    prefixes = group_of(codes[:, :-1]) if codes.shape[1] > 1 else np.zeros(len(codes), dtype=np.int64)
    for rows in np.split(np.argsort(prefixes, kind="stable"), np.cumsum(np.bincount(prefixes))[:-1]):
        if len(np.unique(last[rows])) < len(rows) <= len(codebooks[-1]):
            distances = ((residual[rows, None, :] - codebooks[-1][None, :, :]) ** 2).sum(axis=2)
            _, last[rows] = linear_sum_assignment(distances)
    moved = int((last != codes[:, -1]).sum())
    return np.concatenate([codes[:, :-1], last[:, None]], axis=1), moved


def twins(codes: CodeArray, item_ids: Sequence[str]) -> dict[int, int]:
    """Row -> the row it shares its codes with: all but the first of each group, by id; and that first one."""
    groups = group_of(codes).tolist()
    first: dict[int, int] = {}
    later: dict[int, int] = {}
    for row in sorted(range(len(codes)), key=item_ids.__getitem__):
        if first.setdefault(groups[row], row) != row:
            later[row] = first[groups[row]]
    return later


def free_last_codes(codes: CodeArray, size: int, item_ids: Sequence[str]) -> npt.NDArray[np.int32]:
    """Other last codes for `twins`, each the smallest that no item of its prefix has: without vectors none is nearer.

    Args:
        codes: (N, L) int32.
        size: codes of the last level.
        item_ids: N ids, in the order of the rows.

    Returns:
        (N,) int32.

    Raises:
        DataError: A prefix has more items than the level has codes.
    """
    moved = twins(codes, item_ids)
    prefixes = group_of(codes[:, :-1]) if codes.shape[1] > 1 else np.zeros(len(codes), dtype=np.int64)
    taken: dict[int, set[int]] = {int(prefixes[row]): set() for row in moved}
    for prefix, code in zip(prefixes.tolist(), codes[:, -1].tolist(), strict=True):
        if prefix in taken:
            taken[prefix].add(code)
    last = codes[:, -1].copy()
    for row in moved:
        used = taken[int(prefixes[row])]
        free = next((code for code in range(size) if code not in used), None)
        if free is None:
            raise DataError(
                f"item {item_ids[row]!r} shares its codes with {item_ids[moved[row]]!r}, and all {size:,} codes of the "
                "last level are taken by items that share those before it; give it other codes."
            )
        used.add(free)
        last[row] = free
    return last


def collision_level(
    codes: CodeArray, popularity: npt.NDArray[np.int64], item_ids: Sequence[str]
) -> npt.NDArray[np.int32] | None:
    """The codes of a further level that tells equal items apart, or None if no items are equal.

    Within a group the most popular item has code 0, ties by id; an item without a twin has code 0 too.

    Args:
        codes: (N, L) int32.
        popularity: (N,) training interactions.
        item_ids: N ids, in the order of the rows.

    Returns:
        (N,) int32.

    Raises:
        DataError: A group is larger than `MAX_COLLISION_CODES`.
    """
    groups = group_of(codes)
    sizes = np.bincount(groups)
    if sizes.max() == 1:
        return None
    largest = np.flatnonzero(groups == sizes.argmax())
    if len(largest) > MAX_COLLISION_CODES:
        named = ", ".join(repr(item_ids[row]) for row in largest[:5])
        raise DataError(
            f"{len(largest):,} items share the semantic ID {tuple(codes[largest[0]].tolist())} ({named}, …), more than "
            f"the {MAX_COLLISION_CODES:,} that a collision level may tell apart; use larger quantize.codebook_sizes, "
            "more levels, or vectors that differ"
        )
    by_id = np.argsort(np.argsort(np.array(item_ids, dtype=object)))
    order = np.lexsort((by_id, -popularity, groups))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    level = np.empty(len(codes), dtype=np.int32)
    level[order] = np.arange(len(codes)) - starts[groups[order]]
    return level
