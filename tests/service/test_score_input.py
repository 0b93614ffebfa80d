"""A row of the input as a request, or the sentence on why it is none."""

import json
from typing import Any

import pytest

from genrec.errors import DataError
from genrec.filters import Filter
from genrec.requests import Request
from service.schemas import RecommendRequest
from service.score_input import Row, RowParser, check_columns
from service.translation import to_request
from tests.service.fakes import FakeRecommender
from tests.service.scoring import write_rows


def parse(fields: dict[str, Any], **defaults: Any) -> Row:
    return RowParser(defaults, FakeRecommender().validate)(lambda: dict(fields))


def test_a_row_is_the_request_that_the_service_would_make_of_it():
    fields = {
        "history": ["1", {"item_id": "2", "event": "view"}], "k": 3, "exclude": ["3"], "exclude_history": False,
        "num_beams": 5, "filter": {"where": {"year": {"gte": 1980}}}, "prove_exact": True,
    }  # fmt: skip
    assert parse({"user_id": "a", **fields}) == Row("a", to_request(RecommendRequest.model_validate(fields)), None)


def test_numbers_in_lists_and_of_users_become_decimal_strings():
    row = parse({"user_id": 7, "history": [50, "0181", 10**30], "exclude": [3]})
    assert row.user_id == "7"
    assert row.request == Request(["50", "0181", str(10**30)], exclude=["3"])
    row = parse({"user_id": 7, "history": [], "filter": {"include_ids": [50, "0181"], "where": {"year": {"eq": 1990}}}})
    assert row.request == Request([], exclude=[], filter=Filter(["50", "0181"], {"year": {"eq": 1990}}))


def test_what_a_row_does_not_give_comes_from_the_command():
    assert parse({"user_id": "a", "history": [], "k": None}, k=4, num_beams=6).request == Request(
        [], exclude=[], k=4, num_beams=6
    )
    assert parse({"user_id": "a", "history": [], "k": 2, "num_beams": 3}, k=4, num_beams=6).request == Request(
        [], exclude=[], k=2, num_beams=3
    )


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "/history Field required."),
        ({"history": None}, "/history Field required."),
        ({"history": "50"}, "/history Input should be a valid list."),
        ({"history": ["1", None]}, "/history/1 Input should be an item id as a string, or an object with item_id."),
        ({"history": [True]}, "/history/0 Input should be an item id as a string, or an object with item_id."),
        ({"history": [1.5]}, "/history/0 Input should be an item id as a string, or an object with item_id."),
        ({"history": [""]}, "/history/0 String should have at least 1 character."),
        ({"history": [], "k": 0}, "/k Input should be greater than or equal to 1."),
        ({"history": [], "k": "5"}, "/k Input should be a valid integer."),
        ({"history": [], "k": True}, "/k Input should be a valid integer."),
        ({"history": [], "k": 9999}, "/k k must be from 1 to 20."),
        ({"history": [], "num_beams": 3}, "/num_beams num_beams must be at least k: "),
        ({"history": [], "exclude_history": "yes"}, "/exclude_history Input should be a valid boolean."),
        ({"history": [], "prove_exact": 1}, "/prove_exact Input should be a valid boolean."),
        ({"history": [], "filter": []}, "/filter Input should be"),
        ({"history": [], "filter": '{"where": {}}'}, "/filter Input should be"),
        ({"history": [], "filter": {"were": {}}}, "/filter There is no such field; did you mean where."),
        ({"history": [], "filter": {"include_ids": [1.5]}}, "/filter/include_ids/0 Input should be a valid string."),
        ({"history": [], "filter": {"where": {"yaer": {}}}}, "/filter/where The catalog has no such column; did you"),
        ({"history": [], "filter": {"where": {"\ud800": {}}}}, "/filter/where The catalog has no such column."),
        ({"history": [], "filter": {"where": {"title": {"eq": "\ud800"}}}}, "/filter/where/title/eq eq takes a string"),
        ({"history": [], "filter": {"where": {"year": {"gte": float("nan")}}}}, "/filter/where/year/gte gte takes an"),
        ({"history": [], "fallbak": "none"}, "There is no column 'fallbak'."),
        ({"history": [], "excude": []}, "There is no column 'excude'; did you mean 'exclude'?"),
        ({"history": [], "\ud800" * 100: 1}, "There is no column '\\ud800"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_asked_says_why_and_keeps_its_user(fields, error):
    row = parse({"user_id": "a", **fields})
    assert (row.user_id, row.request) == ("a", None)
    assert row.error is not None
    assert row.error.startswith(error), row.error
    row.error.encode()


@pytest.mark.parametrize(
    ("user_id", "error"),
    [
        (None, "/user_id user_id is missing."),
        ("", "/user_id String should have at least 1 character."),
        (1.0, "/user_id Input should be a valid string."),
        (True, "/user_id Input should be a valid string."),
        ("x" * 513, "/user_id String should have at most 512 characters."),
        ("\ud800", "/user_id Input should be a valid string, unable to parse"),
    ],
)
def test_a_user_that_is_none_is_an_error_too(user_id, error):
    row = parse({"user_id": user_id, "history": []})
    assert row.error is not None
    assert row.error.startswith(error), row.error
    assert (row.user_id, row.request) == (None, None)


def test_a_filter_that_is_null_is_no_filter():
    assert parse({"user_id": "a", "history": [], "filter": None}).request == Request([], exclude=[])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_without_users_or_histories_is_refused(tmp_path, suffix):
    path = write_rows(tmp_path / f"rows.{suffix}", [{"user_id": "a", "k": 3}])
    with pytest.raises(DataError, match="has no column 'history'; its columns: user_id, k"):
        check_columns(path)


def test_of_jsonl_an_unknown_key_is_refused_if_the_first_row_has_it_and_else_an_error_of_its_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    good, bad = json.dumps({"user_id": "a", "history": []}), json.dumps({"user_id": "b", "history": [], "kk": 1})
    path.write_text(f"{bad}\n{good}\n")
    with pytest.raises(
        DataError, match=r"a column 'kk', which is not read; did you mean 'k'\? Read are user_id, history, k,"
    ):
        check_columns(path)
    path.write_text(f"{good}\n{bad}\n")
    check_columns(path)
    assert parse(json.loads(bad)).error == "There is no column 'kk'; did you mean 'k'?"


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_rows_has_no_columns_to_refuse(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    check_columns(path)
