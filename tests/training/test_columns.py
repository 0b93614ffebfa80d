from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from training.columns import Parsed, choose_time_unit, own_type, parse_id, parse_metadata, parse_number, parse_time
from training.recipe_data import MetadataColumn


def read(parsed: Parsed, values: pl.Series) -> tuple[list[object], list[str | None]]:
    frame = pl.DataFrame({"x": values}).select(parsed.value.alias("v"), parsed.problem.alias("p"))
    return frame["v"].to_list(), frame["p"].to_list()


def ids(values: list[object]) -> tuple[list[object], list[str | None]]:
    series = pl.Series(values)
    return read(parse_id("x", series.dtype), series)


def times(values: list[object], unit: str = "auto") -> tuple[list[object], list[str | None]]:
    series = pl.Series(values)
    chosen = choose_time_unit(pl.DataFrame({"x": series}).lazy(), "x", unit)
    return read(parse_time("x", series.dtype, chosen), series)


def metadata(wanted: MetadataColumn, values: list[object]) -> tuple[list[object], list[str | None]]:
    series = pl.Series(values, strict=False)
    return read(parse_metadata("x", wanted, series.dtype), series)


def test_ids_keep_leading_zeros_and_numbers_become_decimal() -> None:
    assert ids(["007", "a b", "é"]) == (["007", "a b", "é"], [None] * 3)
    assert ids([7, 2**62]) == (["7", str(2**62)], [None] * 2)


@pytest.mark.parametrize("value", ["", "  ", None, "a\nb", "a\x00", "\x7f", "\x85"])
def test_an_empty_id_or_one_with_control_characters_is_a_problem(value: str | None) -> None:
    (problem,) = ids([value])[1] if value is not None else (ids([None, "a"])[1][0],)
    assert problem is not None
    assert problem.startswith("x ")


@pytest.mark.parametrize("values", [[1.0], [True], [[1]]])
def test_an_id_column_of_another_type_is_refused(values: list[object]) -> None:
    with pytest.raises(DataError, match="an id must be text or a whole number"):
        ids(values)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ([881250949, 891717742], 881250949000),
        (["881250949", " 891717742 "], 881250949000),
        ([881250949.5], 881250949500),
        ([1, 2, 204], 1000),
        ([1700000000123], 1700000000123),
        (["2024-01-01"], 1704067200000),
        (["2024-01-01T00:00:00.250Z"], 1704067200250),
        (["2024-01-01 02:00:00+02:00"], 1704067200000),
        (["2023-12-31T18:30:00-0530"], 1704067200000),
        (["2024-01-01T00:00"], 1704067200000),
        ([datetime(2024, 1, 1)], 1704067200000),
        ([datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))], 1704067200000),
        ([date(2024, 1, 1)], 1704067200000),
    ],
)
def test_the_unit_of_a_time_is_told_from_its_looks(values: list[object], first: int) -> None:
    read_times, problems = times(values)
    assert read_times[0] == first
    assert problems == [None] * len(values)


def test_a_unit_that_is_given_is_not_guessed() -> None:
    assert times([1000], "milliseconds")[0] == [1000]
    assert times([2 * 10**11], "seconds")[0] == [2 * 10**14]
    assert times(["2024-01-01"], "iso")[0] == [1704067200000]


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.none()))
def test_every_iso_time_of_python_is_read_to_the_millisecond(moment: datetime) -> None:
    expected = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert times([moment.isoformat()], "iso") == ([expected], [None])


@pytest.mark.parametrize("values", [[20240101, 20240102], [5, 1700000000000], [1700000000000000]])
def test_numbers_that_fit_no_unit_are_refused(values: list[object]) -> None:
    with pytest.raises(DataError, match="time_unit"):
        times(values)


@pytest.mark.parametrize("text", ["2024-13-01", "2024-02-30", "2024-01-01T25:00", "yesterday", "2024-01-01T10:00 CET"])
def test_text_that_is_no_time_is_a_problem_with_its_words(text: str) -> None:
    values, problems = times([text, "2024-01-01", "2024-01-02"])
    assert values[0] is None
    assert problems[0] == f"x {text} is not an ISO 8601 time"


def test_a_time_that_is_empty_or_beyond_all_calendars_is_a_problem() -> None:
    assert times([None, 5])[1] == ["x is empty", None]
    assert times(["abc", "5", "6"])[1][0] == "x abc is not a time in seconds"
    assert times([float("inf"), 5.0])[1][0] is not None
    assert times([1e300], "seconds")[1][0] is not None


def test_lists_come_from_text_with_a_separator_or_from_lists() -> None:
    piped = MetadataColumn(type="list", separator="|")
    assert metadata(piped, ["Crime|Drama", "", "|a| b |", None])[0] == [["Crime", "Drama"], [], ["a", "b"], []]
    assert metadata(MetadataColumn(type="list"), [["a", None, ""], [], None])[0] == [["a"], [], []]
    assert metadata(MetadataColumn(type="list"), [[1, 2]])[0] == [["1", "2"]]
    with pytest.raises(DataError, match="separator"):
        metadata(MetadataColumn(type="list"), ["a|b"])


def test_typed_metadata_reads_text_and_names_what_it_cannot_read() -> None:
    integer = MetadataColumn(type="integer")
    assert metadata(integer, ["1995", " 7 ", "", "1995.5"]) == (
        [1995, 7, None, None],
        [None, None, None, "x 1995.5 is not of type integer"],
    )
    assert metadata(integer, [1.0, 2.5])[1] == [None, "x 2.5 is not of type integer"]
    assert metadata(MetadataColumn(type="number"), ["1.5", "1e3", "nan"])[0] == [1.5, 1000.0, None]
    assert metadata(MetadataColumn(type="number"), [float("inf")])[1][0] is not None
    assert metadata(MetadataColumn(type="boolean"), ["true", "0", "False"])[0] == [True, False, False]
    assert metadata(MetadataColumn(type="boolean"), ["yes"])[1] == ["x yes is not of type boolean"]
    assert metadata(MetadataColumn(), [1995])[0] == ["1995"]
    with pytest.raises(DataError, match='type = "list"'):
        metadata(MetadataColumn(), [["a"]])


def test_a_rating_may_be_absent_but_not_a_word() -> None:
    series = pl.Series(["4.5", None, "good"])
    values, problems = read(parse_number("x", series.dtype), series)
    assert values == [4.5, None, None]
    assert problems == [None, None, "x good is not of type number"]


def test_typed_columns_name_their_own_type() -> None:
    frame = pl.DataFrame({"a": ["x"], "b": [1], "c": [1.5], "d": [True], "e": [["x"]], "f": [date(2024, 1, 1)]})
    named = [own_type(kind) for kind in frame.schema.values()]
    assert [kind.type if kind else None for kind in named] == ["string", "integer", "number", "boolean", "list", None]
