"""What callers write is read to the letter, and a row is found if and only if the condition is known to hold for it."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import RequestError
from genrec.predicates import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, OPERATORS, Every, Not, OneOf, parse_predicate
from genrec.semantic_id import Catalog, column_type

TABLE = pa.table(
    {
        "title": ["Alien", "Brazil", None, "alien", "é🎬", ""],
        "year": pa.array([1979, 1985, 1990, None, 2001, -1]),
        "score": [7.5, -0.0, None, 0.0, math.nan, 1e300],
        "seen": [True, False, None, True, False, None],
        "genres": [["Drama", "War"], [], None, ["Drama", None], ["Noir"], [None]],
        "a/b~c": ["x", "y", None, "x", "y", "x"],
    }
)
COLUMNS = {field.name: column_type(field.type, field.name) for field in TABLE.schema}


def found(where: object, table: pa.Table = TABLE) -> list[int]:
    """The rows that a predicate lets through."""
    columns = {field.name: column_type(field.type, field.name) for field in table.schema}
    predicate = parse_predicate(where, columns, "/filter/where")
    codes = np.arange(table.num_rows, dtype=np.int32)[:, None]
    catalog = (
        Catalog(pa.array(codes[:, 0].astype(str)), codes, codes[:, 0].astype(np.int64), table)
        if table.num_rows
        else None
    )
    in_tables = [table, catalog.filterable] if catalog else [table]
    plain, *encoded = (np.broadcast_to(predicate.over(one).yes, one.num_rows) for one in in_tables)
    assert all((plain == one).all() for one in encoded), "dictionaries make no difference"
    return np.flatnonzero(plain).tolist()


def refused(where: object, columns: Mapping[str, str] = COLUMNS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_predicate(where, columns, "/filter/where")
    str(caught.value).encode()
    return caught.value


GRAMMAR = [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"title": {"eq": "Alien"}}, [0]),
    ({"title": {"eq": "Ali"}}, []),
    ({"title": {"eq": ""}}, [5]),
    ({"title": {"in": ["é🎬", "alien", "nowhere"]}}, [3, 4]),
    ({"title": {"in": []}}, []),
    ({"title": {"any_of": ["Alien", "Brazil"]}}, [0, 1]),
    ({"title": {"none_of": ["Alien", "Brazil"]}}, [3, 4, 5]),
    ({"title": {"none_of": []}}, [0, 1, 3, 4, 5]),
    ({"title": {"gte": "B", "lte": "b"}}, [1, 3]),
    ({"year": {"eq": 1985}}, [1]),
    ({"year": {"gte": 1985}}, [1, 2, 4]),
    ({"year": {"lte": 1985}}, [0, 1, 5]),
    ({"year": {"gte": 1980, "lte": 1990}}, [1, 2]),
    ({"year": {"in": [1979, -1, 2**64 - 1, -(2**63)]}}, [0, 5]),
    ({"year": {"none_of": [1979]}}, [1, 2, 4, 5]),
    ({"year": {"gte": 2**64 - 1}}, []),
    ({"year": {"lte": 2**64 - 1}}, [0, 1, 2, 4, 5]),
    ({"score": {"eq": 0}}, [1, 3]),
    ({"score": {"in": [-0.0]}}, [1, 3]),
    ({"score": {"gte": 7}}, [0, 5]),
    ({"score": {"lte": 7.5}}, [0, 1, 3]),
    ({"score": {"none_of": [7.5]}}, [1, 3, 5]),
    ({"seen": {"eq": True}}, [0, 3]),
    ({"seen": {"in": [True, False]}}, [0, 1, 3, 4]),
    ({"seen": {"none_of": [True]}}, [1, 4]),
    ({"genres": {"any_of": ["Drama"]}}, [0, 3]),
    ({"genres": {"any_of": ["War", "Noir"]}}, [0, 4]),
    ({"genres": {"any_of": []}}, []),
    ({"genres": {"none_of": ["Drama"]}}, [1, 4, 5]),
    ({"genres": {"any_of": ["Drama"], "none_of": ["War"]}}, [3]),
    ({"a/b~c": {"eq": "x"}}, [0, 3, 5]),
    ({"title": {"gte": "B"}, "year": {"gte": 1980}}, [1, 4]),
    ({"and": [{"title": {"gte": "B"}}, {"year": {"gte": 1980}}]}, [1, 4]),
    ({"or": [{"year": {"eq": 1979}}, {"seen": {"eq": False}}]}, [0, 1, 4]),
    ({"or": [{}, {"seen": {"eq": False}}]}, [0, 1, 2, 3, 4, 5]),
    ({"not": {}}, []),
    ({"not": {"year": {"eq": 1979}}}, [1, 2, 4, 5]),
    ({"not": {"not": {"year": {"eq": 1979}}}}, [0]),
    ({"not": {"seen": {"eq": True}, "year": {"gte": 1980}}}, [0, 1, 4, 5]),
    ({"not": {"or": [{"year": {"lte": 1980}}, {"genres": {"any_of": ["Noir"]}}]}}, [1]),
    ({"seen": {"eq": True}, "not": {"genres": {"any_of": ["War"]}}}, [3]),
]  # fmt: skip


@pytest.mark.parametrize(("where", "rows"), GRAMMAR, ids=[str(where) for where, _ in GRAMMAR])
def test_the_grammar(where: object, rows: list[int]) -> None:
    assert found(where) == rows
    chunked = pa.concat_tables([TABLE.slice(0, 2), TABLE.slice(2, 1), TABLE.slice(3), TABLE.slice(0, 0)])
    assert found(where, chunked) == rows


@pytest.mark.parametrize("where", [{"title": {"eq": "x"}}, {"year": {"lte": 3}}, {"genres": {"any_of": ["x"]}}])
def test_what_is_missing_is_found_neither_by_a_condition_nor_by_its_opposite(where: object) -> None:
    nothing = pa.Table.from_pylist([{}], TABLE.schema)
    assert found(where, nothing) == found({"not": where}, nothing) == []
    assert found({"or": [where, {"not": where}]}, nothing) == []


WRONG = [
    ([], "", "object of columns"),
    (None, "", "object of columns"),
    ("year", "", "object of columns"),
    ({"yaer": {"gte": 1}}, "", "no such column; did you mean year?"),
    ({"qqqqqqqq": {"gte": 1}}, "", "no such column. Known: title, year, score, seen, genres, a/b~c."),
    ({"\ud800": 1}, "", "no such column."),
    ({1: 1}, "", "no such column."),
    ({"year": 1990}, "/year", "takes an object of operators: eq, in, any_of, none_of, gte, lte."),
    ({"year": [1990]}, "/year", "takes an object of operators"),
    ({"year": {}}, "/year", "takes an object of operators"),
    ({"genres": ["Drama"]}, "/genres", "takes an object of operators: any_of, none_of."),
    ({"year": {"gt": 1}}, "/year", "no such operator; did you mean gte?"),
    ({"year": {"$where": 1}}, "/year", "no such operator"),
    ({"year": {"eq": 1, "equals": 2}}, "/year", "no such operator"),
    ({"genres": {"eq": "Drama"}}, "/genres/eq", "does not fit a column of type list of strings; use any_of or none_of"),
    ({"genres": {"in": ["Drama"]}}, "/genres/in", "use any_of or none_of"),
    ({"seen": {"gte": True}}, "/seen/gte", "does not fit a column of type boolean; use eq or in or any_of or none_of"),
    ({"year": {"gte": "1990"}}, "/year/gte", "takes an integer of 64 bits here: the column is of type integer."),
    ({"year": {"gte": 1990.0}}, "/year/gte", "takes an integer"),
    ({"year": {"gte": True}}, "/year/gte", "takes an integer"),
    ({"year": {"gte": None}}, "/year/gte", "takes an integer"),
    ({"year": {"gte": [1990]}}, "/year/gte", "takes an integer"),
    ({"year": {"gte": 2**64}}, "/year/gte", "takes an integer"),
    ({"year": {"gte": -(2**63) - 1}}, "/year/gte", "takes an integer"),
    ({"year": {"in": 1990}}, "/year/in", "in takes a list of values."),
    ({"year": {"in": {"gte": 1}}}, "/year/in", "in takes a list of values."),
    ({"year": {"in": [1, 2, "3", "4"]}}, "/year/in/2", "takes an integer"),
    ({"year": {"in": [1, [2]]}}, "/year/in/1", "takes an integer"),
    ({"score": {"gte": "7"}}, "/score/gte", "takes a number"),
    ({"score": {"gte": False}}, "/score/gte", "takes a number"),
    ({"score": {"gte": math.nan}}, "/score/gte", "takes a number"),
    ({"score": {"gte": -math.inf}}, "/score/gte", "takes a number"),
    ({"score": {"in": [0, 2**53 + 1]}}, "/score/in/1", "takes a number that 64-bit floating point holds exactly"),
    ({"score": {"gte": 10**400}}, "/score/gte", "takes a number"),
    ({"seen": {"eq": 1}}, "/seen/eq", "takes true or false"),
    ({"seen": {"eq": "true"}}, "/seen/eq", "takes true or false"),
    ({"title": {"eq": 1}}, "/title/eq", "takes a string"),
    ({"title": {"eq": "\ud800"}}, "/title/eq", "takes a string"),
    ({"genres": {"any_of": "Drama"}}, "/genres/any_of", "takes a list of values"),
    ({"genres": {"none_of": [["Drama"]]}}, "/genres/none_of/0", "takes a string"),
    ({"a/b~c": {"eq": 1}}, "/a~1b~0c/eq", "takes a string"),
    ({"and": {}}, "/and", "and takes a list of at least one predicate"),
    ({"or": []}, "/or", "or takes a list of at least one predicate"),
    ({"or": [{}, 5]}, "/or/1", "object of columns"),
    ({"not": [{"year": {"eq": 1}}]}, "/not", "object of columns"),
    ({"and": [{"or": [{"not": {"year": {"eq": "x"}}}]}]}, "/and/0/or/0/not/year/eq", "takes an integer"),
    ({"not": {"eq": 1}}, "/not", "no such column"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "pointer", "sentence"), WRONG, ids=[repr(where) for where, _, _ in WRONG])
def test_what_is_not_of_the_grammar_is_refused_at_its_place_with_the_mend(
    where: object, pointer: str, sentence: str
) -> None:
    error = refused(where)
    assert error.pointer == f"/filter/where{pointer}"
    assert sentence in str(error)


@pytest.mark.parametrize(
    "where",
    [
        {"canary": {"gte": 1}},
        {"year": {"canary": 1}},
        {"year": {"eq": "canary"}},
        {"title": {"eq": {"canary": 1}}},
        {"and": [{"canary": 1}]},
        {"not": "canary"},
        {"title": {"in": "canary"}},
    ],
)
def test_nothing_that_was_sent_is_repeated(where: object) -> None:
    error = refused(where)
    assert "canary" not in str(error) + error.pointer


def test_a_column_called_like_a_combinator_is_not_reached() -> None:
    columns = {"not": "integer", "year": "integer"}
    assert parse_predicate({"not": {"year": {"eq": 1}}}, columns, "") == Not(OneOf("year", frozenset([1])))
    assert "no such column" in str(refused({"not": {"eq": 1}}, columns))


def test_the_order_and_the_spelling_make_no_difference() -> None:
    def read(where: object) -> object:
        return parse_predicate(where, COLUMNS, "")

    for one, other in [
        ({"year": {"gte": 1, "lte": 2}, "seen": {"eq": True}}, {"seen": {"in": [True]}, "year": {"lte": 2, "gte": 1}}),
        ({"title": {"in": ["a", "b", "a"]}}, {"title": {"any_of": ["b", "a"]}}),
        ({"title": {"none_of": ["a"]}}, {"not": {"title": {"eq": "a"}}}),
        ({"and": [{"year": {"eq": 1}}, {"seen": {"eq": True}}]}, {"seen": {"eq": True}, "year": {"eq": 1}}),
        ({"or": [{"year": {"eq": 1}}, {"seen": {"eq": True}}]}, {"or": [{"seen": {"eq": True}}, {"year": {"eq": 1}}]}),
        ({"and": [{"year": {"eq": 1}}]}, {"year": {"eq": 1}}),
    ]:  # fmt: skip
        assert (read(one), hash(read(one))) == (read(other), hash(read(other)))
    assert read({"year": {"gte": 1}}) != read({"year": {"lte": 1}})
    assert read({}) == Every(frozenset())


def nested(depth: int) -> dict[str, Any]:
    where: dict[str, Any] = {"year": {"eq": 1}}
    for _ in range(depth):
        where = {"not": where}
    return where


def test_a_predicate_may_be_as_large_as_the_limits_and_no_larger() -> None:
    assert found(nested(MAX_DEPTH)) == found({"year": {"eq": 1}})
    error = refused(nested(MAX_DEPTH + 1))
    assert (error.pointer, str(error)) == (
        "/filter/where" + "/not" * (MAX_DEPTH + 1),
        f"At most {MAX_DEPTH} combinators may lie in one another.",
    )
    assert "combinators" in str(refused(nested(800)))
    many = [{"year": {"gte": year}} for year in range(MAX_CONDITIONS)]
    assert found({"or": many}) == [0, 1, 2, 4]
    assert f"at most {MAX_CONDITIONS} conditions" in str(refused({"or": many, "score": {"gte": 0}}))
    assert found({"and": [{"year": {"eq": 1985}}] * 1000}) == [1]
    values = list(range(MAX_VALUES))
    assert found({"year": {"in": values}}) == [0, 1, 2, 4]
    assert f"at most {MAX_VALUES} values" in str(refused({"year": {"in": values}, "title": {"none_of": ["x"]}}))


def test_integers_are_compared_exactly_in_columns_of_every_width() -> None:
    big = pa.table({"n": pa.array([2**53, 2**53 + 1, None, 2**63 - 1], pa.int64())})
    assert found({"n": {"eq": 2**53 + 1}}, big) == [1]
    assert found({"n": {"gte": 2**53 + 1}}, big) == [1, 3]
    assert found({"n": {"gte": 2**63}}, big) == []
    small = pa.table({"n": pa.array([-128, 127, None, 0], pa.int8())})
    assert found({"n": {"in": [127, 128, -128 - 256]}}, small) == [1]
    assert found({"n": {"lte": 300}}, small) == [0, 1, 3]
    unsigned = pa.table({"n": pa.array([0, 2**64 - 1, None], pa.uint64())})
    assert found({"n": {"gte": -1}}, unsigned) == [0, 1]
    assert found({"n": {"eq": 2**64 - 1}}, unsigned) == [1]
    assert found({"n": {"none_of": [-1]}}, unsigned) == [0, 1]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_numbers_are_compared_in_the_precision_of_their_column(kind: pa.DataType) -> None:
    values = pa.array(np.array([0.1, 0.5, 7.0]), pa.float64())
    column = pa.array(values.to_numpy().astype(kind.to_pandas_dtype()), kind)
    table = pa.table({"x": pa.concat_arrays([column, pa.nulls(1, kind)])})
    held = float(np.float32(0.1)) if kind != pa.float16() else float(np.float16(0.1))
    asked = 0.1 if kind == pa.float64() else held
    assert found({"x": {"eq": asked}}, table) == [0]
    assert found({"x": {"gte": asked, "lte": asked}}, table) == [0]
    assert found({"x": {"lte": 1e300}}, table) == [0, 1, 2]
    assert found({"x": {"gte": -1e300, "lte": 0.5}}, table) == [0, 1]
    if kind == pa.float32():
        assert found({"x": {"eq": 0.1}}, table) == found({"x": {"lte": 0.1}}, table) == [0]


def test_long_strings_and_lists_of_them_are_read_too() -> None:
    table = pa.table(
        {
            "s": pa.array(["a", None, "b"], pa.large_string()),
            "l": pa.array([["a"], None, ["b", "a"]], pa.large_list(pa.large_string())),
        }
    )
    assert found({"s": {"gte": "b"}}, table) == [2]
    assert found({"s": {"in": ["a"]}}, table) == [0]
    assert found({"l": {"none_of": ["b"]}}, table) == [0]


# An evaluator that shares nothing with ours: plain Python, a row at a time, None for unknown.


def by_hand(where: Mapping[str, Any], row: Mapping[str, Any]) -> bool | None:
    verdicts: list[bool | None] = []
    for name, value in where.items():
        if name == "not":
            inner = by_hand(value, row)
            verdicts.append(None if inner is None else not inner)
        elif name == "and":
            verdicts.append(both([by_hand(part, row) for part in value]))
        elif name == "or":
            parts = [by_hand(part, row) for part in value]
            verdicts.append(True if True in parts else None if None in parts else False)
        else:
            verdicts += [hand_operator(operator, row[name], wanted) for operator, wanted in value.items()]
    return both(verdicts)


def both(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def hand_operator(operator: str, value: Any, wanted: Any) -> bool | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    values = value if isinstance(value, list) else [value]
    match operator:
        case "eq":
            return value == wanted
        case "in" | "any_of":
            return any(one in wanted for one in values)
        case "none_of":
            return not any(one in wanted for one in values)
        case "gte":
            return value >= wanted
    return value <= wanted


WORDS = st.sampled_from(["", "a", "b", "é", "🎬", "Z"])
INTEGERS = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])
NUMBERS = st.sampled_from([-1.5, -0.0, 0.0, 1, 2.5, 1e300])
VALUES = {"title": WORDS, "year": INTEGERS, "score": NUMBERS, "seen": st.booleans(), "genres": WORDS}
ROWS = st.fixed_dictionaries(
    {
        "title": st.none() | WORDS,
        "year": st.none() | INTEGERS,
        "score": st.none() | NUMBERS | st.just(math.nan),
        "seen": st.none() | st.booleans(),
        "genres": st.none() | st.lists(st.none() | WORDS, max_size=3),
    }
)
SCHEMA = pa.schema(
    [
        ("title", pa.string()),
        ("year", pa.int64()),
        ("score", pa.float64()),
        ("seen", pa.bool_()),
        ("genres", pa.list_(pa.string())),
    ]
)


def column_conditions(column: str) -> st.SearchStrategy[dict[str, Any]]:
    value = VALUES[column]
    listed = st.lists(value, max_size=3)
    operators = {"any_of": listed, "none_of": listed}
    if column != "genres":
        operators |= {"eq": value, "in": listed}
    if column not in ("genres", "seen"):
        operators |= {"gte": value, "lte": value}
    return st.lists(st.sampled_from(sorted(operators)), min_size=1, max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: operators[name] for name in names})
    )


LEAVES = st.sampled_from(sorted(VALUES)).flatmap(
    lambda column: st.fixed_dictionaries({column: column_conditions(column)})
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"and": parts})
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"or": parts})
        | st.tuples(LEAVES, inner).map(lambda pair: pair[0] | {"not": pair[1]})
    ),
    max_leaves=6,
)


@given(PREDICATES, st.lists(ROWS, min_size=1, max_size=8), st.integers(0, 8))
def test_rows_are_found_as_by_hand(where: dict[str, Any], rows: list[dict[str, Any]], cut: int) -> None:
    whole = pa.Table.from_pylist(rows, SCHEMA)
    table = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert found(where, table) == [place for place, row in enumerate(rows) if by_hand(where, row) is True]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["and", "or", "not", "year", "title", "score", "genres", "seen", "eq", "in", "any_of", "gte"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JUNK)
def test_whatever_is_sent_is_a_predicate_or_a_sentence_at_a_place_in_it(sent: Any) -> None:
    try:
        predicate = parse_predicate(sent, COLUMNS, "")
    except RequestError as error:
        for step in error.pointer.split("/")[1:]:
            sent = sent[int(step)] if isinstance(sent, list) else sent[step]
    else:
        predicate.over(TABLE)


# The page that callers read

FILTERS_PAGE = re.search(
    r"^### Filters\n(.*?)^### ", (Path(__file__).parents[2] / "docs/serving.md").read_text(), re.DOTALL | re.MULTILINE
)


def test_the_documented_examples_are_of_the_grammar() -> None:
    assert FILTERS_PAGE is not None
    columns = {"year": "integer", "genres": "list of strings", "studio": "string"}
    examples = [
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", FILTERS_PAGE[1], re.DOTALL | re.MULTILINE)
    ]
    assert len(examples) == 2
    for example in examples:
        parse_predicate(example.get("filter", example)["where"], columns, "")


def test_the_documented_table_says_which_operators_fit_which_columns() -> None:
    assert FILTERS_PAGE is not None
    value = {"string": "a", "integer": 1, "number": 1, "boolean": True, "list of strings": "a"}
    found = {}
    for names, takes, *fit in re.findall(
        r"^\| (`.*?`) \| a (value|list) \| .*? \| (.*?) ?\| (.*?) ?\| (.*?) ?\| (.*?) ?\|$",
        FILTERS_PAGE[1],
        re.MULTILINE,
    ):
        for operator in re.findall(r"`(\w+)`", names):
            found[operator] = takes
            for kinds, yes in zip(("string", "integer, number", "boolean", "list of strings"), fit, strict=True):
                for kind in kinds.split(", "):
                    sent = {"c": {operator: [value[kind]] if takes == "list" else value[kind]}}
                    if yes == "yes":
                        parse_predicate(sent, {"c": kind}, "")
                    else:
                        assert "does not fit a column" in str(refused(sent, {"c": kind}))
    assert set(found) == set(OPERATORS)
