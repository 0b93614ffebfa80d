"""Codes made elsewhere: CSV or Parquet with code columns, or JSON of token strings.

Knows those files, and how sparse, 1-based or spelled codes become 0, 1, 2, …. Shapes: N items, L levels.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from genrec.errors import DataError, one_line
from training.codebooks import fit_to_codes
from training.columns import parse_id, parse_metadata
from training.quantizer import CodeArray, Codes, ItemVectors
from training.recipe_data import MetadataColumn
from training.recipe_quantize import GivenCodes
from training.sources import ROW, Source, reading, scan

CODE_COLUMN = re.compile(r"code_(\d+)")
SPELLED = re.compile(r"<?([^\d<>]*?)_?(\d+)>?")
"""``<a_12>``, ``a_12``, ``<|sid_12|>`` do: the letters sort first, then the number."""

Table = Mapping[str, Sequence[int | str]]
"""Item id → its codes as the file has them."""


@dataclass(frozen=True, slots=True)
class GivenQuantizer:
    """Reads codes instead of making them.

    Attributes:
        source: Where they are.
    """

    source: GivenCodes

    def quantize(self, items: ItemVectors) -> Codes:
        """Look up the codes of all items and make them dense.

        Raises:
            DataError: The file is broken, or an item is not in it.
        """
        table = _from_json(self.source) if self.source.path.endswith(".json") else _from_columns(self.source)
        missing = [item for item in items.item_ids if item not in table]
        if missing:
            named = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise DataError(f"{self.source.path} has no codes for {len(missing):,} items ({named}); add them")
        rows = [table[item] for item in items.item_ids]
        lengths = {len(row) for row in rows}
        if len(lengths) > 1 or not max(lengths):
            raise DataError(f"{self.source.path}: items have {sorted(lengths)} codes; every item needs the same number")
        codes, originals = dense(rows)
        notes = [
            f"Level {level}: {len(values)} codes, {values[0]} to {values[-1]}, were renumbered 0 to {len(values) - 1}."
            for level, values in enumerate(originals)
            if not _is_dense(values)
        ]
        description = {
            "path": self.source.path,
            "items_not_in_the_data": len(table) - len(rows),
            "original_codes": [values if values != list(range(len(values))) else None for values in originals],
        }
        sizes = tuple(map(len, originals))
        if not items.vectors.shape[1]:
            return Codes(codes, sizes, description, notes=notes)
        # The file says nothing of items that come later; centroids of what its codes hold do.
        return Codes(codes, sizes, description, fit_to_codes(items.vectors, codes, sizes), notes)


def dense(rows: Sequence[Sequence[int | str]]) -> tuple[CodeArray, list[list[int | str]]]:
    """Renumber each level's codes 0, 1, 2, … in the order of their numbers.

    Returns:
        (N, L) int32, and per level the original code of each new one.
    """
    columns = list(zip(*rows, strict=True))
    originals = [sorted(set(column), key=_code_order) for column in columns]
    numbers = [{value: number for number, value in enumerate(values)} for values in originals]
    codes = [[number[value] for value in column] for number, column in zip(numbers, columns, strict=True)]
    return np.array(codes, dtype=np.int32).T.copy(), originals


def _is_dense(values: Sequence[int | str]) -> bool:
    """Whether the codes already are 0, 1, 2, …, however spelled."""
    orders = [_code_order(value) for value in values]
    return len({letters for letters, _, _ in orders}) == 1 and [number for _, number, _ in orders] == [
        *range(len(orders))
    ]


def _code_order(value: int | str) -> tuple[str, int, str]:
    if isinstance(value, int):
        return "", value, ""
    spelled = SPELLED.fullmatch(value)
    return (spelled[1], int(spelled[2]), value) if spelled else (value, 0, value)


def _from_columns(given: GivenCodes) -> Table:
    source = scan(given.path)
    columns = list(given.codes) if given.codes is not None else _code_columns(source)
    source.require({"item": given.item, **{f"codes.{n}": column for n, column in enumerate(columns)}}, "quantize.given")
    kinds = source.schema
    whole = MetadataColumn(type="integer")
    numbers = [parse_metadata(column, whole, kinds[column]).value.alias(column) for column in columns]
    with reading(given.path):
        table = source.frame.select(ROW, parse_id(given.item, kinds[given.item]).value, *numbers).collect()
    broken = table.filter(pl.any_horizontal(pl.col(given.item, *columns).is_null()))
    if len(broken):
        raise DataError(f"{source.place(broken[ROW][0])}: an id or a code is empty or no whole number")
    twice = table.filter(pl.col(given.item).is_duplicated())
    if len(twice):
        raise DataError(f"{given.path}: item {twice[given.item][0]!r} has more than one row; keep one")
    return dict(zip(table[given.item].to_list(), table.select(columns).rows(), strict=True))


def _code_columns(source: Source) -> list[str]:
    found = [name for name in source.columns if CODE_COLUMN.fullmatch(name)]
    if not found:
        raise DataError(
            f"{source.path} has no columns code_0, code_1, …; rename its own so, or name them in quantize.given.codes. "
            f"Its columns: {', '.join(source.columns)}"
        )
    return sorted(found, key=lambda name: int(name.removeprefix("code_")))


def _from_json(given: GivenCodes) -> Table:
    try:
        text = Path(given.path).read_text(encoding="utf-8")
        table = json.loads(text, object_pairs_hook=_no_repeats)
    except (OSError, ValueError) as error:
        raise DataError(f"{given.path} cannot be read as codes: {one_line(error)} (looked in {Path.cwd()})") from error
    if not isinstance(table, dict):
        raise DataError(f'{given.path} must be one JSON object, {{"item": ["<a_12>", "<b_5>"], …}}')
    for item, codes in table.items():
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise DataError(f"{given.path}: item {item!r} must have a list of token strings, not {codes!r:.80}")
    return table


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"item {twice!r} occurs twice")
    return table
