"""The loop: what overlaps, what is bounded, and whose fault a failure is."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from genrec.answers import Answer
from genrec.errors import DataError, EngineError, InputError
from genrec.requests import Request
from service.score_input import Row, Shard
from service.score_part import ScoredRow
from service.score_run import run, score_rows
from tests.service.fakes import BREAKS, UNANSWERABLE, FakeRecommender


def shard(number: int) -> Shard:
    return Shard(number, number, [Row(str(number), None, "bad")], 1.0)


def scored(given: Shard) -> list[ScoredRow]:
    return [ScoredRow.failed(row.user_id, "bad") for row in given.rows]


def test_shards_are_committed_in_order():
    committed: list[int] = []
    run(iter([shard(number) for number in (0, 2, 5)]), scored, lambda number, rows: committed.append(number))
    assert committed == [0, 2, 5]


def test_the_next_shard_is_read_and_the_last_one_written_while_one_is_scored():
    read, written = threading.Event(), threading.Event()

    def shards() -> Iterator[Shard]:
        for number in range(3):
            if number == 2:
                read.set()
            yield shard(number)

    def score(given: Shard) -> list[ScoredRow]:
        if given.number == 1:
            assert read.wait(5), "reading waits for scoring"
            assert written.wait(5), "writing waits for scoring"
        return scored(given)

    run(shards(), score, lambda number, rows: written.set())


def test_no_more_than_one_shard_is_read_ahead_and_one_unwritten():
    read: list[int] = []
    committed: list[int] = []
    apart: list[tuple[int, int]] = []

    def shards() -> Iterator[Shard]:
        for number in range(20):
            read.append(number)
            yield shard(number)

    def score(given: Shard) -> list[ScoredRow]:
        apart.append((read[-1] - given.number, given.number - (committed[-1] if committed else -1)))
        return scored(given)

    run(shards(), score, lambda number, rows: committed.append(number))
    assert max(ahead for ahead, _ in apart) <= 1
    assert max(behind for _, behind in apart) <= 2


def test_a_file_that_breaks_off_ends_the_run_after_what_was_read_is_committed():
    def shards() -> Iterator[Shard]:
        yield shard(0)
        raise DataError("broken")

    committed: list[int] = []
    with pytest.raises(DataError, match="broken"):
        run(shards(), scored, lambda number, rows: committed.append(number))
    assert committed == [0]


@pytest.mark.parametrize("last", [0, 3])
def test_a_part_that_cannot_be_written_ends_the_run(last):
    def commit(number: int, rows: Sequence[ScoredRow]) -> None:
        if number == last:
            raise InputError("no space")

    with pytest.raises(InputError, match="no space"):
        run(iter([shard(number) for number in range(4)]), scored, commit)


def asked(*histories: Sequence[str] | None) -> list[Row]:
    return [
        Row(str(number), None, "bad") if history is None else Row(str(number), Request(history, k=1), None)
        for number, history in enumerate(histories)
    ]


def test_batches_are_of_consecutive_rows_and_bad_ones_are_not_asked():
    recommender, done = FakeRecommender(), []
    rows = score_rows(recommender, asked(["1"], None, ["2"], None, None, ["3"], ["4"]), 2, done.append)
    assert [[request.history for request in batch] for batch in recommender.asked] == [
        [["1"]],
        [["2"]],
        [["3"]],
        [["4"]],
    ]
    assert [row.error for row in rows] == [None, "bad", None, "bad", "bad", None, None]
    assert [row.user_id for row in rows] == list("0123456")
    assert done == [2, 4, 6, 7]


class Sealed(FakeRecommender):
    """Answers golden requests, or no longer does."""

    alive = True
    replayed = 0

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


def test_a_batch_too_large_for_memory_is_answered_row_by_row():
    class Small(Sealed):
        def attempt(self, requests: Sequence[Request]) -> list[Answer | EngineError]:
            if len(requests) > 1:
                raise MemoryError
            return super().attempt(requests)

    rows = score_rows(Small(), asked(["1"], ["2"], ["3"]), 8, lambda done: None)
    assert [row.error for row in rows] == [None] * 3
