"""Candidates get the score that a search gives them, and the probability that brute force gives them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genrec.allowed import ItemMask
from genrec.answers import ScoreAnswer, ScoredCandidate
from genrec.availability import Availability
from genrec.decoding.engine import Query, Scores
from genrec.errors import EngineError, RequestError
from genrec.filters import Filter
from genrec.recommender import Recommender
from genrec.requests import Request, ScoreRequest
from tests import oracle

ALL = [f"i{number}" for number in range(40)]
HISTORY = ["i1", "i2"]


@pytest.fixture(scope="module", params=["beam", "generate"])
def scorer(recommender: Recommender, request: pytest.FixtureRequest) -> Recommender:
    """A recommender of each architecture with each engine."""
    return Recommender.of(recommender.bundle, engine=request.param)


def score(recommender: Recommender, history: list[str], candidates: list[str], **fields: Any) -> ScoreAnswer:
    return recommender.score(ScoreRequest(history, candidates, **fields))


def scores(answer: ScoreAnswer) -> dict[str, float | None]:
    return {item.item_id: item.score for item in answer.items}


def probabilities(answer: ScoreAnswer) -> dict[str, float | None]:
    return {item.item_id: item.probability for item in answer.items}


def test_every_item_gets_the_score_and_probability_of_brute_force(scorer: Recommender) -> None:
    answer = score(scorer, HISTORY, ALL)
    assert [item.item_id for item in answer.items] == ALL
    assert scores(answer) == pytest.approx(oracle.score_all(scorer.bundle, HISTORY), abs=1e-4)
    expected = oracle.constrained_probabilities(scorer.bundle, HISTORY, set())
    assert probabilities(answer) == pytest.approx(expected, abs=1e-5)
    assert sum(expected.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("exclude_history", [True, False])
def test_an_item_that_is_recommended_has_the_same_score_and_probability_when_it_is_named(
    scorer: Recommender, exclude_history: bool
) -> None:
    asked = Filter(where={"year": {"gte": 1910}})
    [found] = scorer.recommend([Request(HISTORY, k=20, exclude_history=exclude_history, filter=asked)])
    named = score(
        scorer, HISTORY, [item.item_id for item in found.items], exclude_history=exclude_history, filter=asked
    )
    assert [item.score for item in named.items] == pytest.approx([item.score for item in found.items], abs=1e-4)
    assert [item.probability for item in named.items] == pytest.approx(
        [item.probability for item in found.items], abs=1e-5
    )


def test_what_the_model_may_not_say_keeps_its_score_and_has_no_probability(scorer: Recommender) -> None:
    everything = scores(score(scorer, HISTORY, ALL))
    catalog = scorer.bundle.catalog
    off = {catalog.item_id(row) for row in range(10)}
    in_stock = ItemMask(np.arange(40) >= 10)
    limited = replace(scorer, availability=Availability(3, in_stock))
    limits = {"filter": Filter(include_ids=ALL[:30]), "exclude_history": True}
    outside = off | set(ALL[30:]) | set(HISTORY)
    answer = score(limited, HISTORY, ALL, **limits)
    assert answer.catalog_version == 3
    assert scores(answer) == pytest.approx(everything, abs=1e-4)
    assert {item for item, probability in probabilities(answer).items() if probability == 0.0} == outside
    expected = oracle.constrained_probabilities(scorer.bundle, HISTORY, outside)
    assert {item: probabilities(answer)[item] for item in expected} == pytest.approx(expected, abs=1e-5)


def test_where_nothing_may_be_said_there_are_scores_all_the_same(scorer: Recommender) -> None:
    answer = score(scorer, HISTORY, ALL, filter=Filter(include_ids=[]))
    assert scores(answer) == pytest.approx(scores(score(scorer, HISTORY, ALL)), abs=1e-4)
    assert set(probabilities(answer).values()) == {0.0}


def test_candidates_come_in_the_order_sent_with_repeats_and_unknown_ones_are_listed(scorer: Recommender) -> None:
    answer = score(scorer, HISTORY, ["i9", "x", "i3", "i9", "", "\ud800", "x", "i1"])
    assert [item.item_id for item in answer.items] == ["i9", "i3", "i9", "i1"]
    assert answer.items[0] == answer.items[2]
    assert answer.unknown_candidates == ("x", "", "\ud800", "x")


def test_a_score_does_not_depend_on_the_other_candidates(scorer: Recommender) -> None:
    together = scores(score(scorer, HISTORY, ALL))
    for item in ("i0", "i1", "i20", "i39"):
        assert scores(score(scorer, HISTORY, [item]))[item] == pytest.approx(together[item], abs=1e-5)


def test_of_the_history_the_newest_known_items_are_read(scorer: Recommender) -> None:
    answer = score(scorer, ["i1", "i2", "i3", "x", "i4", "i5", "i6"], ["i7"])
    assert (answer.history_used, answer.truncated, answer.unknown_items) == (5, True, ("x",))
    newest = score(scorer, ["i2", "i3", "i4", "i5", "i6"], ["i7"])
    assert (newest.history_used, newest.truncated, newest.unknown_items) == (5, False, ())
    assert answer.items == newest.items


@pytest.mark.parametrize("history", [[], ["x", "y"]])
def test_without_a_known_item_in_the_history_there_is_nothing_to_go_by(causal: Recommender, history: list[str]) -> None:
    answer = score(causal, history, ["i1", "x", "i2"])
    assert answer.items == (ScoredCandidate("i1", None, None), ScoredCandidate("i2", None, None))
    assert (answer.history_used, answer.unknown_items, answer.unknown_candidates) == (0, tuple(history), ("x",))


@pytest.mark.parametrize("candidates", [[], ["x", "y"]])
def test_without_a_known_candidate_there_is_no_item(causal: Recommender, candidates: list[str]) -> None:
    answer = score(causal, HISTORY, candidates)
    assert (answer.items, answer.unknown_candidates, answer.history_used) == ((), tuple(candidates), 2)


def test_a_filter_that_does_not_fit_is_refused_with_its_place(causal: Recommender) -> None:
    request = ScoreRequest(HISTORY, ["i1"], filter=Filter(where={"yaer": {"gte": 1}}))
    for refuse in (causal.validate_score, causal.score):
        with pytest.raises(RequestError, match="did you mean year") as refused:
            refuse(request)
        assert refused.value.pointer == "/filter/where"
    causal.validate_score(ScoreRequest(HISTORY, ["i1"], filter=Filter(where={"year": {"gte": 1}})))


def test_the_model_is_asked_once_and_only_for_what_it_can_be_asked(causal: Recommender) -> None:
    calls: list[list[int]] = []

    class Watched:
        def score(self, query: Query, rows: np.ndarray) -> Scores:
            calls.append(rows.tolist())
            return causal.engine.score(query, rows)

    watched = replace(causal, engine=Watched())
    score(watched, HISTORY, [*ALL * 20, "x"])
    assert [len(rows) for rows in calls] == [800]
    score(watched, HISTORY, ["x"])
    score(watched, ["x"], ALL)
    assert len(calls) == 1


def test_a_model_that_breaks_is_an_engine_error(causal: Recommender) -> None:
    class Broken:
        def score(self, query: Query, rows: np.ndarray) -> Scores:
            raise EngineError("the model gave NaN")

    with pytest.raises(EngineError):
        score(replace(causal, engine=Broken()), HISTORY, ["i1"])


def test_the_time_is_told(causal: Recommender) -> None:
    timing = score(causal, HISTORY, ["i3"]).timing
    assert timing.encode_ms >= 0
    assert timing.decode_ms > 0
