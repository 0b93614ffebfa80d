import pytest
from pydantic import ValidationError

from genrec.errors import RequestError
from service.schemas import BatchRequest, RecommendRequest
from service.validation import pointer, refusal


def refused(body: object, model: type = RecommendRequest) -> RequestError:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    return refusal(caught.value.errors(), body)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "/history"),
        ({"history": "1"}, "/history"),
        ({"history": [1]}, "/history/0"),
        ({"history": ["1", None]}, "/history/1"),
        ({"history": [{"event": "x"}]}, "/history/0/item_id"),
        ({"history": [{"item_id": 5}]}, "/history/0/item_id"),
        ({"history": [""]}, "/history/0"),
        ({"history": [], "k": "5"}, "/k"),
        ({"history": [], "fields": ["a", 1]}, "/fields/1"),
        ({"history": [], "filter": []}, "/filter"),
        ({"history": [], "filter": {"where": []}}, "/filter/where"),
        ({"history": [], "filter": {"include_ids": ["1", 2]}}, "/filter/include_ids/1"),
        ([], ""),
        (None, ""),
    ],
)
def test_the_pointer_leads_to_the_wrong_value(body, where):
    assert refused(body).pointer == where


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"histroy": [], "history": []}, "There is no such field; did you mean history?"),
        ({"history": [], "qqqqqqqq": 1}, "There is no such field."),
        ({"history": [{"item_id": "1", "evnt": "x"}]}, "There is no such field; did you mean event?"),
        ({"history": [], "filter": {"were": {}}}, "There is no such field; did you mean where?"),
    ],
)
def test_an_unknown_field_is_told_the_nearest_known_one(body, sentence):
    assert str(refused(body)).replace("?.", "?").startswith(sentence.rstrip("?."))


def test_the_number_of_further_errors_is_told():
    assert "2 more" in str(refused({"history": [], "k": 0, "num_beams": 0, "timeout_ms": 0}))


@pytest.mark.parametrize("field", ["history", "exclude", "fields"])
def test_a_list_is_checked_no_further_than_its_first_wrong_element(field):
    error = refused({"history": [], field: [1] * 9_999})
    assert (error.pointer, "more" in str(error)) == (f"/{field}/0", False)


def test_a_batch_is_checked_for_its_frame_only():
    assert BatchRequest.model_validate({"requests": [{"nonsense": 1}]}).requests == [{"nonsense": 1}]
    assert refused({"requests": []}, BatchRequest).pointer == "/requests"


def test_union_members_are_no_part_of_a_pointer():
    assert pointer(("history", 0, "as object", "item_id"), {"history": [{"item_id": 1}]}) == "/history/0/item_id"
    assert pointer(("history", 9), {"history": [1]}) == "/history"


CANARY = "canary-5f1e"


@pytest.mark.parametrize(
    "body",
    [
        {CANARY: 1, "history": []},
        {"history": [{CANARY: 1, "item_id": "1"}]},
        {"history": [CANARY + "\x00"]},
        {"history": [], "fallback": CANARY},
        {"history": [], "request_id": CANARY + " "},
        {"history": [], "k": CANARY},
        {"history": [], "filter": {CANARY: {}}},
        {"history": [], "filter": {"include_ids": [CANARY + "\x00"]}},
        {"history": [], "filter": {"where": CANARY}},
        CANARY,
    ],
)
def test_nothing_that_was_sent_is_repeated(body):
    error = refused(body)
    assert CANARY not in str(error) + error.pointer
