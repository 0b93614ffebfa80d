"""The document that callers generate their clients from. A field that appears or leaves changes this file."""

import pytest

from genrec.filters import Filter
from service.app import create_app
from service.schemas import RecommendRequest
from tests.service.fakes import serving, some_settings

ROUTES = {
    "/recommend": {"post"},
    "/v1/recommend": {"post"},
    "/v1/recommend/batch": {"post"},
    "/v1/score": {"post"},
    "/v1/items": {"get"},
    "/v1/items/{item_id}": {"get"},
    "/v1/items/{item_id}/similar": {"get"},
    "/v1/tree": {"get"},
    "/v1/bundle": {"get"},
    "/health": {"get"},
    "/ready": {"get"},
    "/info": {"get"},
    "/metrics": {"get"},
}
REQUEST = {
    "history", "k", "exclude_history", "exclude", "filter", "fields", "num_beams", "fallback", "prove_exact", "explain",
    "request_id", "timeout_ms",
}  # fmt: skip
SCORE_REQUEST = {"history", "candidates", "exclude_history", "filter", "request_id", "timeout_ms"}
EVERYWHERE = {"200", "400", "408", "431", "500", "503"}
WITH_BODY = EVERYWHERE | {"401", "413", "415", "422", "429", "504"}


@pytest.fixture(scope="module")
def document():
    return create_app(some_settings()).openapi()


def test_the_paths_are_the_agreed_ones(document):
    assert {path: set(verbs) for path, verbs in document["paths"].items()} == ROUTES


def test_the_request_has_the_fields_that_work_and_no_other(document):
    for name, fields, required in (
        ("RecommendRequest", REQUEST, ["history"]),
        ("ScoreRequest", SCORE_REQUEST, ["history", "candidates"]),
    ):
        schema = document["components"]["schemas"][name]
        assert set(schema["properties"]) == fields
        assert all(field.get("description") for field in schema["properties"].values() if "$ref" not in field)
        assert schema["required"] == required
        assert schema["additionalProperties"] is False


def test_the_examples_of_a_filter_are_of_the_grammar(document):
    columns = {"year": "integer", "genres": "list of strings"}
    types = document["components"]["schemas"]
    filters = types["RequestFilter"]["examples"] + [
        example["filter"] for example in types["RecommendRequest"]["examples"] if "filter" in example
    ]
    assert len(filters) > 3
    for example in filters:
        RecommendRequest.model_validate({"history": [], "filter": example})
        Filter(**example).predicate(columns)


def test_every_error_is_a_problem_document(document):
    for path, verbs in document["paths"].items():
        for operation in verbs.values():
            for status, reply in operation["responses"].items():
                if status != "200":
                    assert list(reply["content"]) == ["application/problem+json"], (path, status)
                    assert reply["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
    for path in ("/recommend", "/v1/recommend", "/v1/recommend/batch", "/v1/score"):
        assert set(document["paths"][path]["post"]["responses"]) == WITH_BODY
    assert set(document["paths"]["/health"]["get"]["responses"]) == EVERYWHERE
    assert set(document["paths"]["/info"]["get"]["responses"]) == EVERYWHERE | {"401", "429"}


def test_a_key_is_sent_in_either_header_where_keys_are_needed(document):
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["components"]["securitySchemes"]["api_key"]["name"] == "X-API-Key"
    assert document["paths"]["/recommend"]["post"]["security"] == [{"bearer": []}, {"api_key": []}, {}]
    assert document["paths"]["/health"]["get"]["security"] == [{}]


def test_every_reference_leads_somewhere(document):
    types = document["components"]["schemas"]

    def references(part):
        if isinstance(part, dict):
            yield from [part["$ref"]] if "$ref" in part else []
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    named = {reference.rpartition("/")[2] for reference in references(document)}
    assert named <= set(types)
    assert set(types) - named == set(), "no type that nothing uses"


@pytest.mark.anyio
async def test_answers_have_no_field_that_is_not_documented(document):
    types = document["components"]["schemas"]
    async with serving() as running:
        pairs = {
            "RecommendAnswer": await running.recommend("1"),
            "Problem": await running.recommend("1", k=0),
            "BatchAnswer": await running.client.post("/v1/recommend/batch", json={"requests": [{"history": []}]}),
            "ScoreAnswer": await running.score(["1"], ["2"]),
            "ItemList": await running.client.get("/v1/items"),
            "Item": await running.client.get("/v1/items/7"),
            "SimilarItems": await running.client.get("/v1/items/7/similar"),
            "Info": await running.client.get("/info"),
        }
    for name, reply in pairs.items():
        assert set(reply.json()) == set(types[name]["properties"]), name
