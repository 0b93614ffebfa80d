import math

import pytest
from pydantic import ValidationError

from service.schemas import RecommendAnswer, RecommendedItem, RecommendRequest, ScoreRequest

LITERALS = [
    True, False, None, "", "1", "true", 1, 0, -1, 2**31, 2**63, 10**18, 10**40, -(10**40), 1.0, 1.5, -0.0, 1e308,
    math.inf, [], [1], {}, {"a": 1},
]  # fmt: skip


def fits(field: str, value: object) -> bool:
    try:
        RecommendRequest.model_validate({"history": [], field: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("field", "fitting"),
    [
        ("k", [1]),
        ("num_beams", [1, None]),
        ("timeout_ms", [1, None]),
        ("exclude_history", [True, False, None]),
        ("fallback", []),
        ("request_id", ["1", "true", None]),
        ("exclude", [[]]),
        ("filter", [{}, None]),
        ("fields", [[], None]),
        ("history", [[]]),
    ],
)
def test_types_are_strict(field, fitting):
    # repr tells 1 from True and 1.0
    assert {repr(value) for value in LITERALS if fits(field, value)} == {repr(value) for value in fitting}


@pytest.mark.parametrize(
    "item_id", ["1", " ", "é", "e\u0301", "🎬", "👩‍👩‍👧", "مرحبا", "a/b", "%2e", "x" * 512, "\u2028", "' OR 1=1"]
)
def test_ids_are_any_text_and_stay_as_they_are(item_id):
    sent = RecommendRequest.model_validate({"history": [item_id, {"item_id": item_id}], "exclude": [item_id]})
    assert (sent.history[0], sent.history[1].item_id, sent.exclude[0]) == (item_id,) * 3


@pytest.mark.parametrize("item_id", ["", "\x00", "a\nb", "a\n", "\x7f", "\x1b[31m", "x" * 513, "\ud800"])
def test_ids_without_text_or_with_control_characters_are_refused(item_id):
    for field in ("history", "exclude"):
        assert not fits(field, [item_id])
    assert not fits("filter", {"include_ids": [item_id]})
    assert not fits("history", [{"item_id": item_id}])


@pytest.mark.parametrize("request_id", ["a\n", "a b", "a\r\nSet-Cookie: x", "é", "x" * 65, ""])
def test_request_ids_are_safe_in_a_header(request_id):
    assert not fits("request_id", request_id)


def test_only_the_history_is_required_and_the_rest_has_defaults():
    sent = RecommendRequest.model_validate({"history": []})
    assert sent.model_dump() == {
        "history": [], "k": 10, "exclude_history": None, "exclude": [], "filter": None, "fields": None,
        "num_beams": None, "fallback": "popular", "prove_exact": False, "explain": False, "request_id": None,
        "timeout_ms": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "fitting"),
    [
        ({}, True),
        ({"include_ids": None, "where": None}, True),
        ({"include_ids": [], "where": {}}, True),
        ({"include_ids": ["1"] * 10_000}, True),
        ({"include_ids": ["1"] * 10_001}, False),
        ({"include_ids": [1]}, False),
        ({"include_ids": "1"}, False),
        ({"where": []}, False),
        ({"where": "year"}, False),
        ({"where": {"whatever": "the catalog decides"}}, True),
        ({"year": {"gte": 1990}}, False),
    ],
)
def test_a_filter_is_an_object_of_two_parts(value, fitting):
    assert fits("filter", value) is fitting


def test_the_answer_has_the_agreed_fields():
    assert list(RecommendAnswer.model_fields) == [
        "request_id", "bundle", "items", "catalog_version", "history_used", "unknown_items", "truncated", "exact",
        "explain", "timing_ms",
    ]  # fmt: skip
    assert list(RecommendedItem.model_fields) == [
        "rank", "item_id", "score", "probability", "semantic_id", "source", "metadata",
    ]  # fmt: skip


def test_of_a_request_to_score_history_and_candidates_are_required_and_the_rest_has_defaults():
    sent = ScoreRequest.model_validate({"history": [], "candidates": []})
    assert sent.model_dump() == {
        "history": [], "candidates": [], "exclude_history": False, "filter": None, "request_id": None,
        "timeout_ms": None,
    }  # fmt: skip
    for missing in ("history", "candidates"):
        with pytest.raises(ValidationError, match=missing):
            ScoreRequest.model_validate({"history": [], "candidates": []} | {missing: None})
