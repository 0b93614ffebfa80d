"""Reading a column as an id, a time, a number, a list: an expression for the value and one for what is wrong with it.

Knows types and units. Knows neither files nor what the data are for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from genrec.errors import DataError
from training.recipe_data import MetadataColumn

TimeUnit = Literal["seconds", "milliseconds", "iso", "native"]

# A number from here on is milliseconds: as seconds it would lie in the year 5138, as milliseconds in 1973.
MILLISECONDS_FROM = 1e11
MICROSECONDS_FROM = 1e14
# Times are doubles on the way in; up to here every millisecond is exact (the year 287,396).
LAST_MS = 2.0**53

ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<clock>\d{2}:\d{2})(?::(?<second>\d{2})(?:[.,](?<fraction>\d{1,6})\d*)?)?"
    r" ?(?<zone>[Zz]|[+-]\d{2}:?\d{2})?)?$"
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A column as the program wants it.

    Attributes:
        value: Its value, null where there is none or where it cannot be read.
        problem: A string that says what is wrong with the row, null where nothing is.
    """

    value: pl.Expr
    problem: pl.Expr


def parse_id(column: str, kind: pl.DataType) -> Parsed:
    """An id: text as it stands (leading zeros too), whole numbers in decimal.

    Raises:
        DataError: The column is neither text nor whole numbers.
    """
    if not (kind == pl.String or kind.is_integer() or kind == pl.Null):
        raise DataError(f"column {column!r} holds {kind}, an id must be text or a whole number; write it as text")
    value = pl.col(column).cast(pl.String)
    problem = (
        pl.when(value.is_null() | (value.str.strip_chars() == ""))
        .then(pl.lit(f"{column} is empty"))
        .when(value.str.contains(r"\p{Cc}"))
        .then(pl.lit(f"{column} has a control character"))
    )
    return Parsed(value, problem)


def choose_time_unit(frame: pl.LazyFrame, column: str, unit: str) -> TimeUnit:
    """The unit of a time column: what the recipe says, or what its type or the size of its numbers tells.

    Raises:
        DataError: The numbers fit no unit, or more than one.
    """
    kind = frame.collect_schema()[column]
    if kind.is_temporal():
        return "native"
    if unit != "auto":
        return unit  # type: ignore[return-value]  # the recipe allows these words only
    number = _number(column, kind)
    size = frame.select(
        known=pl.col(column).count(), numeric=number.count(), low=number.min(), high=number.max()
    ).collect(engine="streaming")
    known, numeric, low, high = size.row(0)
    if numeric * 2 < known:
        return "iso"
    if numeric == 0:
        return "seconds"
    if low >= 19_000_101 and high <= 21_001_231:
        raise DataError(f'{column} looks like YYYYMMDD ({low:.0f}); write YYYY-MM-DD, or set time_unit = "seconds"')
    largest, smallest = max(abs(low), abs(high)), min(abs(low), abs(high))
    if largest < MILLISECONDS_FROM:
        return "seconds"
    if smallest >= MILLISECONDS_FROM and largest < MICROSECONDS_FROM:
        return "milliseconds"
    raise DataError(
        f"{column} runs from {low:.0f} to {high:.0f}, neither all seconds nor all milliseconds; "
        "set time_unit, or convert the column"
    )


def parse_time(column: str, kind: pl.DataType, unit: TimeUnit) -> Parsed:
    """A time as int64 milliseconds since 1970 UTC. A time without a zone is UTC."""
    raw = pl.col(column)
    match unit:
        case "native":
            value = raw.cast(pl.Datetime("ms")).dt.epoch("ms")
        case "iso":
            value = _iso_ms(raw.cast(pl.String))
        case "seconds" | "milliseconds":
            ms = _number(column, kind) * (1000 if unit == "seconds" else 1)
            value = pl.when(ms.abs() <= LAST_MS).then(ms.round()).cast(pl.Int64)
    expected = "an ISO 8601 time" if unit == "iso" else f"a time in {unit}"
    problem = (
        pl.when(raw.is_null())
        .then(pl.lit(f"{column} is empty"))
        .when(value.is_null())
        .then(pl.format(f"{column} {{}} is not {expected}", raw.cast(pl.String)))
    )
    return Parsed(value, problem)


def parse_metadata(name: str, wanted: MetadataColumn, kind: pl.DataType) -> Parsed:
    """A metadata column of the wanted type; an empty field is null, or an empty list.

    Raises:
        DataError: The column's own type cannot become the wanted one.
    """
    column = wanted.column or name
    raw = pl.col(column)
    if wanted.type == "list":
        return _parse_list(column, wanted.separator, kind)
    if kind.is_nested():
        raise DataError(f'column {column!r} holds {kind}; metadata {name!r} must be of type = "list"')
    if wanted.type == "string":
        return Parsed(raw.cast(pl.String), pl.lit(None, pl.String))
    readers: dict[str, Callable[[str, pl.DataType], pl.Expr]] = {
        "integer": _integer,
        "number": _number,
        "boolean": _boolean,
    }
    value = readers[wanted.type](column, kind)
    filled = raw.is_not_null() & (raw.cast(pl.String).str.strip_chars() != "")
    problem = pl.when(filled & value.is_null()).then(pl.format(f"{column} {{}} is not of type {wanted.type}", raw))
    return Parsed(value, problem)


def parse_number(column: str, kind: pl.DataType) -> Parsed:
    """A number; an empty field is null."""
    return parse_metadata(column, MetadataColumn(type="number"), kind)


def own_type(kind: pl.DataType) -> MetadataColumn | None:
    """The metadata type that a column of a typed file has by itself, None if it has none (dates, structs)."""
    if isinstance(kind, pl.List):
        return MetadataColumn(type="list") if not kind.inner.is_nested() else None
    if kind.is_integer():
        return MetadataColumn(type="integer")
    if kind.is_float() or kind.is_decimal():
        return MetadataColumn(type="number")
    if kind == pl.Boolean:
        return MetadataColumn(type="boolean")
    return MetadataColumn() if kind in (pl.String, pl.Categorical, pl.Enum, pl.Null) else None


def _number(column: str, kind: pl.DataType) -> pl.Expr:
    raw = pl.col(column).str.strip_chars() if kind == pl.String else pl.col(column)
    value = raw.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def _integer(column: str, kind: pl.DataType) -> pl.Expr:
    raw = pl.col(column).str.strip_chars() if kind == pl.String else pl.col(column)
    value = raw.cast(pl.Int64, strict=False)
    return pl.when(value == raw).then(value) if kind.is_float() else value


def _boolean(column: str, kind: pl.DataType) -> pl.Expr:
    if kind == pl.Boolean:
        return pl.col(column)
    word = pl.col(column).cast(pl.String).str.strip_chars().str.to_lowercase()
    return pl.when(word.is_in(["true", "1"])).then(True).when(word.is_in(["false", "0"])).then(False)


def _parse_list(column: str, separator: str | None, kind: pl.DataType) -> Parsed:
    if kind.is_nested():
        elements = pl.col(column).cast(pl.List(pl.String))
    elif separator is None:
        raise DataError(f"column {column!r} holds {kind}, not lists; give its metadata entry a separator such as '|'")
    else:
        elements = pl.col(column).cast(pl.String).str.split(separator)
    trimmed = elements.list.eval(pl.element().str.strip_chars())
    filled = trimmed.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != "")))
    return Parsed(filled.fill_null([]), pl.lit(None, pl.String))


def _iso_ms(text: pl.Expr) -> pl.Expr:
    """ISO 8601 text as milliseconds since 1970 UTC, null where it is not one or not a real date."""
    part = text.str.strip_chars().str.extract_groups(ISO).struct
    clock = pl.concat_str(
        part.field("date"),
        pl.lit("T"),
        part.field("clock").fill_null("00:00"),
        pl.lit(":"),
        part.field("second").fill_null("00"),
        pl.lit("."),
        part.field("fraction").fill_null("0").str.pad_end(6, "0"),
    )
    local = clock.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False).dt.epoch("ms")
    zone = part.field("zone").str.to_uppercase().replace("Z", "+0000").fill_null("+0000").str.replace(":", "")
    minutes = zone.str.slice(1, 2).cast(pl.Int64) * 60 + zone.str.slice(3, 2).cast(pl.Int64)
    offset = pl.when(zone.str.starts_with("-")).then(-minutes).otherwise(minutes)
    return local - offset * 60_000
