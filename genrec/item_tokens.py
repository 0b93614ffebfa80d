"""Item tokens: (level, code) <-> token id, and how such a token is spelled.

The only place that knows the spelling ``<a_17>``. Knows no items and no tokenizer. Shapes: N items, L levels.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError

MAX_LEVELS = len(ascii_lowercase)
_SPELLING = re.compile(r"<([a-z])_(0|[1-9][0-9]{0,8})>")


def spell(level: int, code: int) -> str:
    """The token of `code` at `level`: ``spell(0, 17) == "<a_17>"``."""
    return f"<{ascii_lowercase[level]}_{code}>"


def read_spelling(token: str) -> tuple[int, int]:
    """Level and code of a token as `spell` writes it.

    Raises:
        DataError: the string is not an item token.
    """
    match = _SPELLING.fullmatch(token)
    if match is None:
        raise DataError(f"{token!r} is not an item token; item tokens look like '<a_17>' (level a, code 17).")
    return ascii_lowercase.index(match[1]), int(match[2])


def spell_all(codebook_sizes: Sequence[int]) -> list[str]:
    """Every item token, level by level, code by code: the order in which they join a vocabulary."""
    if len(codebook_sizes) > MAX_LEVELS:
        raise DataError(f"{len(codebook_sizes)} levels are more than the {MAX_LEVELS} that tokens can be spelled for.")
    return [spell(level, code) for level, size in enumerate(codebook_sizes) for code in range(size)]


@dataclass(frozen=True)
class ItemTokens:
    """Which token id stands for which (level, code).

    Attributes:
        token_ids: L tuples; ``token_ids[level][code]`` is the id in the tokenizer. All ids are distinct and >= 0.
    """

    token_ids: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.token_ids or not all(self.token_ids):
            raise DataError("every level needs at least one item token.")
        if self._flat.min() < 0:
            raise DataError(f"item token id {int(self._flat.min())} is negative.")
        values, counts = np.unique(self._flat, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"token id {int(values[counts > 1][0])} stands for two codes; item tokens must be distinct."
            )

    @property
    def num_levels(self) -> int:
        """L, the number of levels."""
        return len(self.token_ids)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many codes each level has."""
        return tuple(len(level) for level in self.token_ids)

    @cached_property
    def _flat(self) -> npt.NDArray[np.int64]:
        return np.concatenate([np.asarray(level, dtype=np.int64) for level in self.token_ids])

    @property
    def highest_id(self) -> int:
        """The largest token id, which must lie within the model's embedding rows."""
        return int(self._flat.max())

    def clash(self, other_ids: Collection[int]) -> int | None:
        """An item token id that is also one of `other_ids` (pad, start, end, …), or None."""
        both = set(self._flat.tolist()) & set(other_ids)
        return min(both) if both else None

    def paths(self, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Token paths of semantic IDs.

        Args:
            codes: ``(N, L)`` int32.

        Returns:
            ``(N, L)`` int32 token ids.

        Raises:
            DataError: the number of levels differs, or a code has no token.
        """
        if codes.ndim != 2 or codes.shape[1] != self.num_levels:
            raise DataError(
                f"codes of shape {codes.shape} do not have the {self.num_levels} levels of the item tokens."
            )
        paths = np.empty(codes.shape, dtype=np.int32)
        for level, ids in enumerate(self.token_ids):
            column = codes[:, level]
            if column.size and (column.min() < 0 or column.max() >= len(ids)):
                row = int(np.argmax((column < 0) | (column >= len(ids))))
                raise DataError(f"code {column[row]} at level {level} (row {row}) has no token: there are {len(ids)}.")
            paths[:, level] = np.asarray(ids, dtype=np.int32)[column]
        return paths
