"""A request of a JSON object is the request that it says, or is refused with the field."""

from typing import Any

import pytest

from genrec.errors import RequestError
from genrec.filters import Filter
from genrec.requests import Request


def test_fields_are_taken_as_they_are_and_the_rest_is_as_ever() -> None:
    assert Request.from_json({"history": ["a"]}) == Request(["a"])
    fields = {
        "history": ["a", "é"], "k": 3, "exclude": ["b"], "exclude_history": False, "num_beams": 7, "fallback": "none",
        "prove_exact": True,
    }  # fmt: skip
    assert Request.from_json(fields) == Request(**fields)
    assert Request.from_json({"history": [], "exclude_history": None, "num_beams": None}) == Request([])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, None),
        ({}, Filter()),
        ({"include_ids": ["a"]}, Filter(include_ids=["a"])),
        ({"where": {"year": {"gte": 1990}}}, Filter(where={"year": {"gte": 1990}})),
        ({"include_ids": None, "where": None}, Filter()),
    ],
)
def test_a_filter_is_an_object_within(content: Any, expected: Filter | None) -> None:
    assert Request.from_json({"history": ["a"], "filter": content}).filter == expected


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "/history"),
        ({"history": "abc"}, "/history"),
        ({"history": 7}, "/history"),
        ({"history": None}, "/history"),
        ({"history": ["a", 1]}, "/history"),
        ({"history": [["a"]]}, "/history"),
        ({"history": [], "k": "5"}, "/k"),
        ({"history": [], "k": True}, "/k"),
        ({"history": [], "k": 5.0}, "/k"),
        ({"history": [], "exclude": "a"}, "/exclude"),
        ({"history": [], "exclude_history": 1}, "/exclude_history"),
        ({"history": [], "num_beams": "7"}, "/num_beams"),
        ({"history": [], "fallback": "random"}, "/fallback"),
        ({"history": [], "fallback": ["none"]}, "/fallback"),
        ({"history": [], "prove_exact": "yes"}, "/prove_exact"),
        ({"history": [], "filter": "year > 1990"}, "/filter"),
        ({"history": [], "filter": []}, "/filter"),
        ({"history": [], "filter": {"year": 1990}}, "/filter"),
        ({"history": [], "filter": {"where": []}}, "/filter"),
        ({"history": [], "filter": {"include_ids": "a"}}, "/filter"),
        ({"history": [], "filter": {"include_ids": [1]}}, "/filter"),
        ({"history": [], "temperature": 1}, ""),
        ({"history": [], "__class__": 1}, ""),
    ],
)
def test_a_field_that_is_unknown_or_of_another_type_is_refused(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestError) as refused:
        Request.from_json(fields)
    assert refused.value.pointer == pointer
