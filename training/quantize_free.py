"""Free semantic IDs near vectors: where an item goes whose own place is taken.

Knows codebooks and the codes that are taken. Moves nothing that has a place. Shapes: M items that seek one, N that have
one, L levels.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError
from training.codebooks import Codebooks, squared_distances

_Codes = npt.NDArray[np.int32]

_DRAWS = 1000
"""Prefixes that an item without vectors may try."""


class Seeker(Protocol):
    """Where the items of a batch would like to go, best first."""

    def prefixes(self, row: int) -> Iterable[tuple[int, ...]]:
        """All codes but the last, of item `row`."""

    def last_codes(self, row: int, prefix: tuple[int, ...]) -> Iterable[int]:
        """Codes of the last level under a prefix."""


@dataclass(frozen=True, slots=True, eq=False)
class ByVector:
    """Nearest first, by the centroids.

    Attributes:
        codebooks: Of all levels but the collision level.
        points: (M, E) float64.
        assigned: (M, levels) int32, the codes that the codebooks give them: their first choice.
        collision_codes: Codes of a collision level, whose smallest are taken first; None where the last level is one
            of the codebooks.
        trained: (size,) bool, codes of the last codebook that some item has. The others come last: a model has not
            learnt them.
        searched: Point → the paths found around it and the search that goes on from there. Thousands of variants with
            one text are one point, and search once.
    """

    codebooks: Codebooks
    points: npt.NDArray[np.float64]
    assigned: _Codes
    collision_codes: int | None
    trained: npt.NDArray[np.bool_]
    searched: dict[bytes, tuple[list[tuple[int, ...]], Iterator[tuple[int, ...]]]] = field(default_factory=dict)

    def prefixes(self, row: int) -> Iterator[tuple[int, ...]]:
        """The assigned prefix, then all by distance."""
        depth = len(self.codebooks.levels) - (self.collision_codes is None)
        yield tuple(self.assigned[row, :depth].tolist())
        point = self.points[row]
        found, further = self.searched.setdefault(point.tobytes(), ([], self.codebooks.near_paths(point, depth)))
        yield from found
        for path in further:
            found.append(path)
            yield path

    def last_codes(self, row: int, prefix: tuple[int, ...]) -> Iterable[int]:
        """Ascending in a collision level, otherwise by distance."""
        if self.collision_codes is not None:
            return range(self.collision_codes)
        left = self.codebooks.left_over(self.points[row : row + 1], np.array([prefix], dtype=np.int32))
        distances = squared_distances(left, self.codebooks.levels[-1])[0]
        order: list[int] = np.lexsort((distances, ~self.trained)).tolist()
        return order


@dataclass(frozen=True, slots=True, eq=False)
class ByChance:
    """Anywhere, by a seed: for codes that were drawn at random.

    Attributes:
        sizes: L code counts.
        has_collision_level: Whether the last level tells items of equal codes apart; its smallest code comes first.
        seed: Of the draws.
    """

    sizes: tuple[int, ...]
    has_collision_level: bool
    seed: int

    def prefixes(self, row: int) -> Iterator[tuple[int, ...]]:
        """As many as may be tried."""
        generator = np.random.default_rng((self.seed, row))
        for _ in range(_DRAWS if len(self.sizes) > 1 else 1):
            yield tuple(generator.integers(self.sizes[:-1]).tolist()) if len(self.sizes) > 1 else ()

    def last_codes(self, row: int, prefix: tuple[int, ...]) -> Iterable[int]:
        """Ascending in a collision level, otherwise shuffled."""
        if self.has_collision_level:
            return range(self.sizes[-1])
        order: list[int] = np.random.default_rng((self.seed, row, *prefix)).permutation(self.sizes[-1]).tolist()
        return order


def place(seeker: Seeker, count: int, taken: _Codes, sizes: tuple[int, ...]) -> _Codes:
    """A free semantic ID for each of `count` items, one after the other, each the best of what is left.

    Args:
        seeker: Where they would like to go.
        count: M.
        taken: (N, L) int32, unique rows.
        sizes: L code counts.

    Returns:
        (M, L) int32: rows that are neither in `taken` nor twice in the result.

    Raises:
        DataError: No prefix that the seeker names has a free code.
    """
    used: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for *prefix, code in taken.tolist():
        used[tuple(prefix)].add(code)
    found = np.empty((count, len(sizes)), dtype=np.int32)
    for row in range(count):
        found[row] = _place_one(seeker, row, used, sizes)
    return found


def _place_one(
    seeker: Seeker, row: int, used: defaultdict[tuple[int, ...], set[int]], sizes: tuple[int, ...]
) -> tuple[int, ...]:
    tried = 0
    for prefix in seeker.prefixes(row):
        tried += 1
        if len(used[prefix]) < sizes[-1]:
            code = next(code for code in seeker.last_codes(row, prefix) if code not in used[prefix])
            used[prefix].add(code)
            return (*prefix, code)
    raise DataError(
        f"no semantic ID is free for item {row + 1:,} of those to be placed: all {sizes[-1]:,} codes of the last level "
        f"are taken under each of the {tried:,} prefixes near it; train again with --from-bundle, which can widen a "
        "collision level, or anew with larger quantize.codebook_sizes, another level or more quantize.spare_codes"
    )
