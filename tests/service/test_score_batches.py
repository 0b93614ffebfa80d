"""Batches: which rows go together, and whose fault a failure is."""

from collections.abc import Sequence
from functools import cached_property

import pytest

from genrec.answers import Answer
from genrec.errors import EngineError, OutOfMemory
from genrec.requests import Request
from service.score_batches import score_rows
from service.score_input import Row
from tests.service.fakes import BREAKS, UNANSWERABLE, FakeRecommender


def asked(*histories: Sequence[str] | None) -> list[Row]:
    return [
        Row(str(number), None, "bad") if history is None else Row(str(number), Request(history, k=1), None)
        for number, history in enumerate(histories)
    ]


def test_rows_of_like_lengths_are_asked_together_and_come_back_in_their_order():
    recommender, done = Sealed(), []
    histories = [["1"] * length for length in (3, 1, 2, 1, 3, 2, 1)]
    rows = score_rows(recommender, asked(*histories), 3, done.append)
    assert [[len(request.history) for request in batch] for batch in recommender.attempted] == [
        [1, 1, 1],
        [2, 2, 3],
        [3],
    ]
    assert [row.user_id for row in rows] == list("0123456")
    assert done == [3, 6, 7]


def test_rows_of_one_length_stay_in_order_and_bad_ones_are_not_asked():
    recommender, done = Sealed(), []
    rows = score_rows(recommender, asked(["1"], None, ["2"], None, None, ["3"], ["4"]), 2, done.append)
    assert [[request.history for request in batch] for batch in recommender.attempted] == [
        [["1"], ["2"]],
        [["3"], ["4"]],
    ]
    assert [row.error for row in rows] == [None, "bad", None, "bad", "bad", None, None]
    assert [row.user_id for row in rows] == list("0123456")
    assert done == [5, 7]


def test_rows_that_are_all_bad_ask_nothing():
    assert [row.error for row in score_rows(Sealed(), asked(None, None), 2, lambda done: None)] == ["bad", "bad"]


class Sealed(FakeRecommender):
    """Answers golden requests, or no longer does."""

    alive = True
    replayed = 0

    @cached_property
    def attempted(self) -> list[Sequence[Request]]:
        return []

    def attempt(self, requests: Sequence[Request]) -> list[Answer | EngineError]:
        self.attempted.append(requests)
        return super().attempt(requests)

    def replay_golden(self) -> None:
        self.replayed += 1
        if not self.alive:
            raise RuntimeError("CUDA error")


@pytest.mark.parametrize(
    ("poison", "said"),
    [(BREAKS, "inference failed with RuntimeError."), (UNANSWERABLE, "the model gave a score that is not finite.")],
)
def test_a_row_that_breaks_the_model_fails_alone(poison, said, caplog):
    recommender = Sealed()
    rows = score_rows(recommender, asked(["1"], [poison], ["2"]), 8, lambda done: None)
    assert [row.error for row in rows] == [None, said, None]
    assert recommender.replayed == 0, "the row after it was answered: the model lives"
    assert ("a batch of 3 rows failed" in caplog.text) is (poison == BREAKS)


def test_where_the_last_row_fails_the_golden_requests_tell_whose_fault_it_is():
    recommender = Sealed()
    rows = score_rows(recommender, asked(["1"], [BREAKS]), 8, lambda done: None)
    assert [row.error is None for row in rows] == [True, False]
    assert recommender.replayed == 1
    recommender.alive = False
    with pytest.raises(EngineError, match="no longer answers the bundle's golden requests"):
        score_rows(recommender, asked(["1"], [BREAKS]), 8, lambda done: None)


def test_a_batch_too_large_for_memory_is_halved_until_it_fits():
    class Small(Sealed):
        def attempt(self, requests: Sequence[Request]) -> list[Answer | EngineError]:
            if len(requests) > 2:
                self.attempted.append(requests)
                raise OutOfMemory("too many")
            return super().attempt(requests)

    recommender = Small()
    rows = score_rows(recommender, asked(*[["1"]] * 7), 8, lambda done: None)
    assert [row.error for row in rows] == [None] * 7
    assert [len(batch) for batch in recommender.attempted] == [7, 3, 1, 2, 4, 2, 2]


def test_one_row_of_a_batch_that_breaks_it_costs_few_calls():
    recommender = Sealed()
    histories = [[BREAKS] if place == 13 else ["1"] for place in range(64)]
    rows = score_rows(recommender, asked(*histories), 64, lambda done: None)
    assert [place for place, row in enumerate(rows) if row.error] == [13]
    assert len(recommender.attempted) == 13
