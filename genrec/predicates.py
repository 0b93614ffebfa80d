"""Conditions on metadata columns: the grammar that callers write, and which rows fulfil what they wrote.

Three-valued: a row without a value fulfils neither a condition nor its opposite. Knows columns and rows; no item ids,
no tensors. Shape: N rows.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import RequestError

MAX_DEPTH = 16
"""How many combinators may lie in one another."""
MAX_CONDITIONS = 32
"""How many conditions a predicate may have: each is a pass over a column of the catalog."""
MAX_VALUES = 10_000
"""How many values they may name in all."""

OPERATORS = ("eq", "in", "any_of", "none_of", "gte", "lte")
_FITTING = {
    "string": OPERATORS,
    "integer": OPERATORS,
    "number": OPERATORS,
    "boolean": ("eq", "in", "any_of", "none_of"),
    "list of strings": ("any_of", "none_of"),
}
_A_VALUE = {
    "string": "a string",
    "integer": "an integer of 64 bits",
    "number": "a number that 64-bit floating point holds exactly",
    "boolean": "true or false",
    "list of strings": "a string",
}
_COMPARISONS = {"gte": (np.greater_equal, pc.greater_equal), "lte": (np.less_equal, pc.less_equal)}

Value = str | int | float | bool


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is known of each row; of a row with neither, nothing.

    Attributes:
        yes: the rows that fulfil it: ``(N,)`` bool, or ``(1,)`` where that is the same for all.
        no: the rows that do not, likewise.
    """

    yes: npt.NDArray[np.bool_]
    no: npt.NDArray[np.bool_]

    @classmethod
    def where_known(cls, found: npt.NDArray[np.bool_], column: pa.ChunkedArray) -> Self:
        """`found` for the rows that have a value. NaN is none."""
        known = ~pc.is_null(column, nan_is_null=True).to_numpy()
        return cls(found & known, ~found & known)

    def __and__(self, other: "Verdict") -> "Verdict":
        return Verdict(self.yes & other.yes, self.no | other.no)

    def __or__(self, other: "Verdict") -> "Verdict":
        return Verdict(self.yes | other.yes, self.no & other.no)

    def __invert__(self) -> "Verdict":
        return Verdict(self.no, self.yes)


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column's value, or one in its list, is among `values`."""

    column: str
    values: frozenset[Value]

    def over(self, table: pa.Table) -> Verdict:
        """The verdict on every row of `table`."""
        column = table.column(self.column)
        if _is_list(column.type):
            found = np.concatenate([_holds_one_of(chunk, list(self.values)) for chunk in column.chunks])
        elif _is_numeric(column.type):
            numbers = _numbers(column)
            found = pc.is_in(pa.array(numbers), value_set=pa.array(_as_held(self.values, numbers.dtype)))
            found = found.to_numpy(zero_copy_only=False)
        else:
            found = pc.is_in(column, value_set=pa.array(list(self.values), column.type)).to_numpy()
        return Verdict.where_known(found, column)


@dataclass(frozen=True, slots=True)
class Bounded:
    """The column's value is `bound` or more (gte), or `bound` or less (lte); strings by code point."""

    column: str
    operator: Literal["gte", "lte"]
    bound: Value

    def over(self, table: pa.Table) -> Verdict:
        """The verdict on every row of `table`."""
        column = table.column(self.column)
        of_numbers, of_strings = _COMPARISONS[self.operator]
        if _is_numeric(column.type):
            numbers = _numbers(column)
            bound = self.bound if numbers.dtype.kind in "iu" else _as_held([self.bound], numbers.dtype)[0]
            found = of_numbers(numbers, bound)
        else:
            found = pc.fill_null(of_strings(column, pa.scalar(self.bound, column.type)), False).to_numpy()
        return Verdict.where_known(found, column)


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold. Where there is none, that is so."""

    parts: frozenset["Predicate"]

    def over(self, table: pa.Table) -> Verdict:
        """The verdict on every row of `table`."""
        holds = Verdict(np.ones(1, dtype=bool), np.zeros(1, dtype=bool))
        return reduce(Verdict.__and__, (part.over(table) for part in self.parts), holds)


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds."""

    parts: frozenset["Predicate"]

    def over(self, table: pa.Table) -> Verdict:
        """The verdict on every row of `table`."""
        return reduce(Verdict.__or__, (part.over(table) for part in self.parts))


@dataclass(frozen=True, slots=True)
class Not:
    """The part is known not to hold."""

    part: "Predicate"

    def over(self, table: pa.Table) -> Verdict:
        """The verdict on every row of `table`."""
        return ~self.part.over(table)


Predicate = OneOf | Bounded | Every | Either | Not
"""A canonical form: the order of what was written makes no difference to it, nor which of two spellings was used."""


def conditions(predicate: Predicate) -> Iterator[OneOf | Bounded]:
    """The leaves of a predicate."""
    match predicate:
        case Every(parts) | Either(parts):
            for part in parts:
                yield from conditions(part)
        case Not(part):
            yield from conditions(part)
        case _:
            yield predicate


def parse_predicate(sent: object, columns: Mapping[str, str], pointer: str) -> Predicate:
    """What a caller wrote, as a predicate.

    Args:
        sent: the object as JSON gives it.
        columns: column -> type, `Catalog.columns`.
        pointer: JSON pointer to `sent`.

    Raises:
        RequestError: it is not of the grammar, does not fit the columns, or is too large. Of what was sent, only names
            that the catalog has as well are repeated.
    """
    predicate = _parse_object(sent, columns, pointer, 0)
    leaves = list(conditions(predicate))
    if len(leaves) > MAX_CONDITIONS:
        raise RequestError(f"A filter has at most {MAX_CONDITIONS} conditions; any_of takes many values.", pointer)
    if sum(len(leaf.values) for leaf in leaves if isinstance(leaf, OneOf)) > MAX_VALUES:
        raise RequestError(f"A filter names at most {MAX_VALUES} values.", pointer)
    return predicate


def _parse_object(sent: object, columns: Mapping[str, str], pointer: str, depth: int) -> Predicate:
    if not isinstance(sent, Mapping):
        raise RequestError('A predicate is an object of columns, {"column": {"operator": value}}.', pointer)
    if depth > MAX_DEPTH:
        raise RequestError(f"At most {MAX_DEPTH} combinators may lie in one another.", pointer)
    parts: set[Predicate] = set()
    for name, value in sent.items():
        if name in ("and", "or", "not"):
            parts.add(_parse_combinator(name, value, columns, f"{pointer}/{name}", depth + 1))
        elif name in columns:
            parts.update(_parse_column(name, value, columns[name], f"{pointer}/{_escaped(name)}"))
        else:
            raise RequestError(f"The catalog has no such column{_nearest(name, list(columns))}", pointer)
    return _joined(Every, parts)


def _parse_combinator(name: str, sent: object, columns: Mapping[str, str], pointer: str, depth: int) -> Predicate:
    if name == "not":
        return Not(_parse_object(sent, columns, pointer, depth))
    if not isinstance(sent, list | tuple) or not sent:
        raise RequestError(f"{name} takes a list of at least one predicate.", pointer)
    parts = {_parse_object(part, columns, f"{pointer}/{place}", depth) for place, part in enumerate(sent)}
    return _joined(Every if name == "and" else Either, parts)


def _joined(kind: type[Every] | type[Either], parts: Set[Predicate]) -> Predicate:
    return next(iter(parts)) if len(parts) == 1 else kind(frozenset(parts))


def _parse_column(column: str, sent: object, kind: str, pointer: str) -> Iterator[Predicate]:
    if not isinstance(sent, Mapping) or not sent:
        raise RequestError(f"A column takes an object of operators: {', '.join(_FITTING[kind])}.", pointer)
    for operator, value in sent.items():
        if operator not in OPERATORS:
            raise RequestError(f"There is no such operator{_nearest(operator, OPERATORS)}", pointer)
        where = f"{pointer}/{operator}"
        if operator not in _FITTING[kind]:
            fitting = " or ".join(_FITTING[kind])
            raise RequestError(f"{operator} does not fit a column of type {kind}; use {fitting}.", where)
        yield _parse_condition(column, operator, value, kind, where)


def _parse_condition(column: str, operator: str, sent: object, kind: str, pointer: str) -> Predicate:
    match operator:
        case "gte" | "lte":
            return Bounded(column, operator, _parse_value(sent, kind, operator, pointer))
        case "eq":
            return OneOf(column, frozenset([_parse_value(sent, kind, operator, pointer)]))
    if not isinstance(sent, list | tuple):
        raise RequestError(f"{operator} takes a list of values.", pointer)
    found = OneOf(
        column,
        frozenset(_parse_value(one, kind, operator, f"{pointer}/{place}") for place, one in enumerate(sent)),
    )
    return Not(found) if operator == "none_of" else found


def _parse_value(sent: object, kind: str, operator: str, pointer: str) -> Value:
    match sent:
        case bool():
            fits = kind == "boolean"
        case int():
            fits = (kind == "integer" and -(2**63) <= sent < 2**64) or (kind == "number" and _is_double(sent))
        case float():
            fits = kind == "number" and _is_double(sent)
        case str():
            fits = kind in ("string", "list of strings") and _is_text(sent)
        case _:
            fits = False
    if not fits:
        raise RequestError(f"{operator} takes {_A_VALUE[kind]} here: the column is of type {kind}.", pointer)
    return sent  # type: ignore[return-value]  # the match has seen to it


def _is_double(number: float) -> bool:
    try:
        return float(number) == number and abs(number) != float("inf")
    except OverflowError:
        return False


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no column can hold
        return False
    return True


def _nearest(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:64], known, n=1) if isinstance(name, str) else []
    listed = ", ".join(known) or "none"
    return f"{f'; did you mean {near[0]}?' if near else '.'} Known: {listed[:300]}{' …' if listed[300:] else '.'}"


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values in the precision that the column holds them in; anything where there is none."""
    if pa.types.is_float16(column.type):  # few functions of Arrow read it
        column = column.cast(pa.float32())
    numbers: npt.NDArray[Any] = pc.fill_null(column, 0).to_numpy()
    if numbers.dtype.kind == "f":
        numbers = np.add(numbers, 0, dtype=numbers.dtype)  # a hash tells -0.0 from 0.0, which are equal
    return numbers


def _as_held(values: Iterable[Value], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values as a column of `dtype` holds them, without those that it cannot hold."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([value for value in values if limits.min <= int(value) <= limits.max], dtype)
    with np.errstate(over="ignore"):  # beyond the column's range is infinite, and compares as such
        held = np.array(list(values), np.float64).astype(dtype)
    return np.asarray(np.add(held, 0, dtype=dtype))


def _holds_one_of(lists: pa.Array, wanted: Sequence[Value]) -> npt.NDArray[np.bool_]:
    """``(N,)`` bool: which lists hold an element of `wanted`."""
    texts = lists.flatten()
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    is_wanted = pc.is_in(texts.dictionary, value_set=pa.array(wanted, texts.dictionary.type))
    is_wanted = np.append(is_wanted.to_numpy(zero_copy_only=False), False)  # the last place is that of null
    hits = is_wanted[pc.fill_null(texts.indices, len(texts.dictionary)).to_numpy()]
    hits_before = np.zeros(len(hits) + 1, dtype=np.int32)
    np.cumsum(hits, dtype=np.int32, out=hits_before[1:])
    ends = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(), dtype=np.int32, out=ends[1:])
    at_ends = hits_before[ends]
    return np.asarray(at_ends[1:] > at_ends[:-1])
