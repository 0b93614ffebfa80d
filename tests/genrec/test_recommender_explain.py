"""An explained answer is the answer, and its explanation is of the search that gave it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genrec.answers import Answer
from genrec.errors import EngineError, RequestError
from genrec.filters import Filter
from genrec.recommender import Recommender
from genrec.requests import Request
from tests import oracle

NONE = np.empty(0, dtype=np.int64)


def same(one: Answer, other: Answer, close: float) -> bool:
    """All but the time it took and how it went; scores within `close`, probabilities to a few digits."""
    rounded = [
        replace(
            answer,
            timing=other.timing,
            explanation=None,
            items=tuple(replace(item, score=None, probability=None) for item in answer.items),
        )
        for answer in (one, other)
    ]
    for item, twin in zip(one.items, other.items, strict=True):
        if twin.score is not None:
            assert item.score == pytest.approx(twin.score, abs=close)
            assert item.probability == pytest.approx(twin.probability, rel=1e-3)
    return rounded[0] == rounded[1]


@pytest.mark.parametrize("engine", ["beam", "generate"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"k": 3, "num_beams": 3},
        {"k": 2, "exclude": [f"i{number}" for number in range(12)], "exclude_history": False},
        {"filter": Filter(where={"year": {"gte": 1915}}), "exclude_history": True},
        {"filter": Filter(include_ids=["i3", "i9", "nothing"])},
        {"k": 3, "num_beams": 3, "prove_exact": True},
        {"k": 50, "num_beams": 50},
    ],
)
def test_its_items_are_those_of_the_plain_answer(recommender: Recommender, engine: str, fields: dict[str, Any]) -> None:
    asked = Recommender.of(recommender.bundle, engine=engine)
    off = replace(asked, availability=asked.availability.changed(off=np.array([0, 5, 17]), on=NONE))
    for current in (asked, off):
        for history in (["i1"], ["i4", "unknown", "i2"], [f"i{number}" for number in range(8)]):
            plain, told = (ask(current, Request(history, **fields)) for ask in (one, Recommender.explain))
            assert same(told, plain, close=0.0 if engine == "beam" else 1e-4)
            assert plain.explanation is None
            assert told.explanation is not None
            leaves = [prefix.semantic_id for prefix in told.explanation.levels[-1].kept]
            assert leaves[: len(told.items)] == [item.semantic_id for item in told.items]


def one(recommender: Recommender, request: Request) -> Answer:
    return recommender.recommend([request])[0]


def test_a_prefix_is_called_by_its_codes_and_a_leaf_has_its_items_score(recommender: Recommender) -> None:
    catalog, exclude = recommender.bundle.catalog, ["i5", "i6"]
    answer = recommender.explain(Request(["i1"], k=4, exclude=exclude, exclude_history=False))
    scores = oracle.score_all(recommender.bundle, ["i1"])
    assert answer.explanation is not None
    for prefix in answer.explanation.levels[-1].kept:
        [row] = np.flatnonzero((catalog.codes == prefix.semantic_id).all(axis=1))
        assert prefix.log_prob / 3 == pytest.approx(scores[catalog.item_id(int(row))], abs=1e-4)
        assert prefix.items == 1
    gone = {catalog.row(item_id) for item_id in exclude}
    allowed = np.array([row not in gone for row in range(len(catalog))])
    for level in answer.explanation.levels:
        for prefix in (*level.kept, *level.pruned, *level.closed):
            below = (catalog.codes[:, : level.level + 1] == prefix.semantic_id).all(axis=1)
            assert below.any()
            assert prefix.items == (below & allowed).sum()


def test_of_a_proof_the_last_search_is_explained(causal: Recommender) -> None:
    histories = [[f"i{number}"] for number in range(20)]
    narrow, wide = (
        [causal.explain(Request(history, k=2, num_beams=2, prove_exact=proof)).explanation for history in histories]
        for proof in (False, True)
    )
    assert {len(explanation.levels[-1].kept) for explanation in narrow if explanation} == {2}
    assert max(len(explanation.levels[-1].kept) for explanation in wide if explanation) > 2


@pytest.mark.parametrize("request_", [Request([]), Request(["unknown"]), Request(["i1"], filter=Filter([]))])
def test_where_the_model_is_not_asked_there_is_nothing_to_explain(causal: Recommender, request_: Request) -> None:
    answer = causal.explain(request_)
    assert answer.explanation is None
    assert same(answer, one(causal, request_), close=0.0)


def test_what_cannot_be_asked_is_refused(causal: Recommender) -> None:
    with pytest.raises(RequestError, match="num_beams must be at least k"):
        causal.explain(Request(["i1"], k=5, num_beams=2))


def test_a_model_that_gives_nan_is_an_error(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    head = recommender.engine.decoder.head  # type: ignore[attr-defined]
    monkeypatch.setattr(head, "log_probs", lambda hidden, level: torch.full((len(hidden), 6 - level), torch.nan))
    with pytest.raises(EngineError, match="not finite"):
        recommender.explain(Request(["i1"]))
