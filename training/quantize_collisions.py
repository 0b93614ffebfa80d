"""Making semantic IDs unique: other codes near by, one more level, or a refusal, where items share their codes.

Knows codes, popularity and ids. Knows nothing of how codes were made. Shapes: N items, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from genrec.errors import DataError
from training.codebooks import Codebooks, squared_distances
from training.quantize_free import ByVector, place
from training.quantizer import CodeArray, Codes, FloatArray, ItemVectors
from training.recipe_quantize import Quantize


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


@dataclass(frozen=True, slots=True, eq=False)
class Unique:
    """Semantic IDs.

    Attributes:
        codes: (N, L) int32, unique rows.
        sizes: L code counts, spare ones included.
        has_collision_level: Whether the last level only tells items apart that share all other codes.
        notes: What the user should be told.
    """

    codes: CodeArray
    sizes: tuple[int, ...]
    has_collision_level: bool
    notes: tuple[str, ...]


def make_unique(made: Codes, section: Quantize, items: ItemVectors, popularity: npt.NDArray[np.int64]) -> Unique:
    """Resolve collisions as the recipe says.

    Raises:
        DataError: Items share their codes and the recipe refuses that, or a collision level would be too wide.
    """
    notes = []
    codes = made.codes
    if section.collisions in ("reassign", "nearest") and made.codebooks is not None:
        points = made.codebooks.encode(items.vectors)
        if section.collisions == "reassign":
            codes = reassign_last_code(codes, points, made.codebooks.levels)
        else:
            codes = nearest_free(codes, points, made.codebooks, _by_popularity(popularity, items.item_ids))
        moved = int((codes != made.codes).any(axis=1).sum())
        notes.append(f"{moved:,} items were given other codes near by, so as to share theirs with no other.")
    left = count_collisions(codes)
    if not left.items:
        notes.append("Semantic IDs are unique; no collision level was needed.")
        return Unique(codes, made.sizes, False, tuple(notes))
    if section.collisions == "refuse":
        raise DataError(f'{_largest(codes, items.item_ids)}, and quantize.collisions is "refuse"; {_MEND}')
    if left.largest > section.max_collision_codes:
        raise DataError(
            f"{_largest(codes, items.item_ids)}, more than the {section.max_collision_codes:,} that a collision level "
            f"may tell apart (quantize.max_collision_codes): such codes mean nothing and are learnt by heart; {_MEND}"
        )
    level = collision_level(codes, popularity, items.item_ids)
    notes.append(
        f"{left.items:,} items shared {left.groups:,} semantic IDs: a collision level of {left.largest} codes was "
        f"added, and {section.spare_codes} spare ones for items that come later; within a group the most popular item "
        "has code 0."
    )
    sizes = (*made.sizes, left.largest + section.spare_codes)
    return Unique(np.concatenate([codes, level[:, None]], axis=1), sizes, True, tuple(notes))


_MEND = (
    'use larger quantize.codebook_sizes, more levels, vectors that differ, or quantize.collisions = "nearest", which '
    "gives each of them free codes near by"
)


def _largest(codes: CodeArray, item_ids: Sequence[str]) -> str:
    """The largest group of items that share their codes, for a sentence."""
    groups = group_of(codes)
    rows = np.flatnonzero(groups == np.bincount(groups).argmax())
    named = ", ".join(repr(item_ids[row]) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
    return f"{len(rows):,} items share the semantic ID {tuple(codes[rows[0]].tolist())} ({named})"


def _by_popularity(popularity: npt.NDArray[np.int64], item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N,) rows, the most popular first, ties by id."""
    by_id = np.argsort(np.argsort(np.array(item_ids, dtype=object)))
    return np.lexsort((by_id, -popularity))


def nearest_free(
    codes: CodeArray, points: npt.NDArray[np.float64], codebooks: Codebooks, order: npt.NDArray[np.int64]
) -> CodeArray:
    """Unique codes: the first item of each group keeps its own, each other gets the nearest free ones, in that order.

    Whatever has codes of its own stays where it is. Any number of items with one text finds a place: under the prefix
    that they share while that has free codes, then under the next-nearest.

    Args:
        codes: (N, L) int32.
        points: (N, E), what was quantized, in the space of the centroids.
        codebooks: L levels.
        order: (N,) rows, the most important first.

    Raises:
        DataError: No code is free near an item.
    """
    groups = group_of(codes)[order]
    firsts = np.unique(groups, return_index=True)[1]
    keeps = np.zeros(len(codes), dtype=bool)
    keeps[firsts] = True
    staying, seeking = order[keeps], order[~keeps]
    trained = np.bincount(codes[staying, -1], minlength=codebooks.sizes[-1]) > 0
    seeker = ByVector(codebooks, points[seeking], codes[seeking], None, trained)
    unique = codes.copy()
    unique[seeking] = place(seeker, len(seeking), codes[staying], codebooks.sizes)
    return unique


def reassign_last_code(codes: CodeArray, points: npt.NDArray[np.float64], codebooks: Sequence[FloatArray]) -> CodeArray:
    """Give items that share all codes different codes of the last level, at the least total distance.

    Within each prefix this is an assignment problem between items and the last codebook's centroids, solved exactly. A
    prefix with more items than that codebook has codes is left as it is, for a collision level.

    Args:
        codes: (N, L) int32.
        points: (N, E), what was quantized, in the space of the centroids.
        codebooks: L arrays (size, E).

    Returns:
        (N, L) int32.
    """
    left = Codebooks(tuple(codebooks)).left_over(points, codes[:, :-1])
    last = codes[:, -1].copy()
    prefixes = group_of(codes[:, :-1]) if codes.shape[1] > 1 else np.zeros(len(codes), dtype=np.int64)
    for rows in np.split(np.argsort(prefixes, kind="stable"), np.cumsum(np.bincount(prefixes))[:-1]):
        if len(np.unique(last[rows])) < len(rows) <= len(codebooks[-1]):
            _, last[rows] = linear_sum_assignment(squared_distances(left[rows], codebooks[-1]))
    return np.concatenate([codes[:, :-1], last[:, None]], axis=1)


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
) -> npt.NDArray[np.int32]:
    """The codes of a further level that tells equal items apart.

    Within a group the most popular item has code 0, ties by id; an item without a twin has code 0 too.

    Args:
        codes: (N, L) int32.
        popularity: (N,) training interactions.
        item_ids: N ids, in the order of the rows.

    Returns:
        (N,) int32.
    """
    groups = group_of(codes)
    importance = _by_popularity(popularity, item_ids)
    order = importance[np.argsort(groups[importance], kind="stable")]
    sizes = np.bincount(groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    level = np.empty(len(codes), dtype=np.int32)
    level[order] = np.arange(len(codes)) - starts[groups[order]]
    return level
