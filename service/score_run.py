"""The one loop of batch scoring: while the model scores a shard, the next is read and the last is written.

Batches begin anew in each shard and are of consecutive rows, so a shard's result does not depend on where a job was
interrupted. Knows neither formats nor files.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from genrec.answers import Answer
from genrec.errors import EngineError, GenrecError
from genrec.recommender import Recommender
from genrec.requests import Request
from service.score_input import Row, Shard
from service.score_part import ScoredRow

log = logging.getLogger(__name__)


def run(
    shards: Iterator[Shard],
    score_rows: Callable[[Shard], list[ScoredRow]],
    commit: Callable[[int, list[ScoredRow]], None],
) -> None:
    """Score every shard and commit it, in order; at most one is read ahead and one being written.

    Raises:
        GenrecError: reading, scoring or writing failed; what was committed stays.
    """
    with ThreadPoolExecutor(1, "reader") as reading, ThreadPoolExecutor(1, "writer") as writing:
        upcoming = reading.submit(next, shards, None)
        written: Future[None] | None = None
        while (shard := upcoming.result()) is not None:
            upcoming = reading.submit(next, shards, None)
            rows = score_rows(shard)
            if written is not None:
                written.result()
            written = writing.submit(commit, shard.number, rows)
        if written is not None:
            written.result()


def score_rows(
    recommender: Recommender, rows: Sequence[Row], batch_size: int, scored: Callable[[int], None]
) -> list[ScoredRow]:
    """Answer rows in batches of `batch_size` consecutive ones; a bad row keeps its place and its error.

    Args:
        recommender: who answers.
        rows: one shard's.
        batch_size: rows given to the model at once.
        scored: told after each batch how many rows are done.

    Raises:
        EngineError: the engine answers nothing any more.
    """
    found: list[ScoredRow] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        outcomes = iter(_recommend(recommender, [row.request for row in batch if row.request is not None]))
        found += [_scored(row, outcomes) for row in batch]
        scored(len(found))
    return found


def _scored(row: Row, outcomes: Iterator[Answer | GenrecError]) -> ScoredRow:
    if row.request is None:
        return ScoredRow.failed(row.user_id, row.error or "")
    outcome = next(outcomes)
    if isinstance(outcome, GenrecError):
        return ScoredRow.failed(row.user_id, str(outcome))
    return ScoredRow.of(row.user_id, outcome)


def _recommend(recommender: Recommender, requests: Sequence[Request]) -> Sequence[Answer | GenrecError]:
    try:
        outcomes: Sequence[Answer | GenrecError] = recommender.attempt(requests) if requests else []
    except Exception:  # whatever the libraries below raise: row by row it is found whose fault it is
        log.exception("a batch of %d rows failed; each is asked alone", len(requests))
        outcomes = [_alone(recommender, request) for request in requests]
    if outcomes and isinstance(outcomes[-1], GenrecError):
        _prove_alive(recommender)
    return outcomes


def _alone(recommender: Recommender, request: Request) -> Answer | GenrecError:
    try:
        return recommender.recommend([request])[0]
    except GenrecError as error:
        return error
    except Exception as error:  # as above, now known to be this row's
        log.exception("a row failed")
        return EngineError(f"inference failed with {type(error).__name__}.")


def _prove_alive(recommender: Recommender) -> None:
    """An engine that is gone fails every row: a row is to blame only where the golden requests are still answered."""
    try:
        recommender.replay_golden()
    except Exception as error:
        raise EngineError(
            "the engine no longer answers the bundle's golden requests; start again to go on, finished parts are kept."
        ) from error
