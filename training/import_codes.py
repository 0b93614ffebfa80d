"""The codes of a checkpoint that was trained elsewhere: unique, and each with the token that it had there.

Knows the file of codes and the tokenizer's vocabulary. Knows neither models nor bundles. Shapes: N items, L levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError
from genrec.item_tokens import MAX_LEVELS
from training.quantize_collisions import count_collisions, free_last_codes, twins
from training.quantize_given import GivenQuantizer
from training.quantizer import CodeArray, ItemVectors
from training.recipe_quantize import GivenCodes

Code = int | str
OnCollision = Literal["refuse", "reassign"]


@dataclass(frozen=True, slots=True)
class Reassigned:
    """An item whose semantic ID is not the one that its checkpoint was trained with.

    Attributes:
        item_id: of the item.
        shared_with: the item that keeps the ID they shared.
        given: codes as the file has them.
        now: codes in the bundle, in the file's words.
    """

    item_id: str
    shared_with: str
    given: tuple[Code, ...]
    now: tuple[Code, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ImportedCodes:
    """Semantic IDs that can be served.

    Attributes:
        codes: (N, L) int32, unique rows, each level dense from 0.
        token_ids: ``token_ids[level][code]`` in the tokenizer.
        reassigned: items that were given another last code, by id.
        notes: What the user should be told.
    """

    codes: CodeArray
    token_ids: tuple[tuple[int, ...], ...]
    reassigned: tuple[Reassigned, ...]
    notes: tuple[str, ...]


def read_imported_codes(
    file: Path, item_ids: Sequence[str], spelling: str, vocabulary: Mapping[str, int], on_collision: OnCollision
) -> ImportedCodes:
    """Read the codes of all items and look up their tokens.

    Args:
        file: CSV or Parquet with code columns, or JSON of token strings.
        item_ids: N ids.
        spelling: of a numbered code's token, see `PromptFile`.
        vocabulary: token -> id.
        on_collision: what to do where items share all codes. `reassign` moves all but the first of them, by id, to the
            smallest free code of the last level, among those that some item has: a code without an item has a token
            that was never trained.

    Raises:
        DataError: the file is broken or lacks an item, a token is unknown or stands for two codes, or items share their
            codes and may not be moved.
    """
    given = GivenQuantizer(GivenCodes(path=str(file))).quantize(
        ItemVectors(item_ids, np.empty((len(item_ids), 0), dtype=np.float32))
    )
    stated = cast("Sequence[Sequence[Code] | None]", given.description["original_codes"])
    names = [tuple(range(size)) if level is None else level for level, size in zip(stated, given.sizes, strict=True)]
    token_ids = _token_ids(names, spelling, vocabulary)
    if not count_collisions(given.codes).items:
        return ImportedCodes(given.codes, token_ids, (), tuple(given.notes))
    if on_collision == "refuse":
        raise _refusal(file, given.codes, names, item_ids)
    last = free_last_codes(given.codes, given.sizes[-1], item_ids)
    codes = np.concatenate([given.codes[:, :-1], last[:, None]], axis=1)
    reassigned = _differences(given.codes, codes, names, item_ids)
    note = (
        f"{len(reassigned):,} of {len(item_ids):,} items shared their codes with another and were given a free code of "
        "the last level; the checkpoint was trained on their old ones. training/reassigned.json lists them."
    )
    return ImportedCodes(codes, token_ids, reassigned, (*given.notes, note))


def _token_ids(
    names: Sequence[Sequence[Code]], spelling: str, vocabulary: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    """The id of each dense code's token, by the spelling that it had where it was trained."""
    if len(names) > MAX_LEVELS:
        raise DataError(f"the codes have {len(names)} levels; a bundle has at most {MAX_LEVELS}.")
    level_of: dict[str, int] = {}
    levels = []
    for level, codes in enumerate(names):
        tokens = [
            code if isinstance(code, str) else spelling.format(letter=ascii_lowercase[level], level=level, code=code)
            for code in codes
        ]
        for token in tokens:
            if token not in vocabulary:
                raise DataError(
                    f"the tokenizer has no token {token!r} (level {level}); say how tokens are spelled with 'spelling' "
                    "in the prompt file, or give the codes as JSON of token strings."
                )
            if level_of.setdefault(token, level) != level:
                raise DataError(
                    f"token {token!r} stands for a code of level {level_of[token]} and for one of level {level}; "
                    "a bundle needs tokens of their own on every level."
                )
        levels.append(tuple(vocabulary[token] for token in tokens))
    return tuple(levels)


def _spelled(row: npt.NDArray[np.int32], names: Sequence[Sequence[Code]]) -> tuple[Code, ...]:
    return tuple(level[code] for level, code in zip(names, row.tolist(), strict=True))


def _refusal(file: Path, codes: CodeArray, names: Sequence[Sequence[Code]], item_ids: Sequence[str]) -> DataError:
    later = twins(codes, item_ids)
    row, keeper = next(iter(later.items()))
    shared = ", ".join(map(str, _spelled(codes[row], names)))
    return DataError(
        f"{file}: {len(later):,} items have the semantic ID of another, such as {item_ids[row]!r} that of "
        f"{item_ids[keeper]!r}, ({shared}); in a bundle each item has its own. Give them other codes and train with "
        "those, or let --collisions reassign give them free codes of the last level."
    )


def _differences(
    given: CodeArray, now: CodeArray, names: Sequence[Sequence[Code]], item_ids: Sequence[str]
) -> tuple[Reassigned, ...]:
    return tuple(
        Reassigned(item_ids[row], item_ids[keeper], _spelled(given[row], names), _spelled(now[row], names))
        for row, keeper in twins(given, item_ids).items()
    )
