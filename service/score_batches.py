"""Scoring the rows of a shard: in batches of like lengths, and so that a row that fails fails alone.

Batches begin anew in each shard and follow from its rows alone, so a shard's result does not depend on where a job was
interrupted or who scores it. Knows neither formats nor files.
"""

import logging
from collections.abc import Callable, Sequence

from genrec.answers import Answer
from genrec.errors import EngineError, GenrecError
from genrec.recommender import Recommender
from genrec.requests import Request
from service.score_input import Row
from service.score_part import ScoredRow

log = logging.getLogger(__name__)


def score_rows(
    recommender: Recommender, rows: Sequence[Row], batch_size: int, told: Callable[[int], None]
) -> list[ScoredRow]:
    """Answer rows, `batch_size` at once, in their order; a bad row keeps its place and its error.

    A batch is as slow as its longest history, so those of like lengths go together.

    Args:
        recommender: who answers.
        rows: one shard's.
        batch_size: rows given to the model at once.
        told: after each batch, how many rows are done.

    Raises:
        EngineError: the engine answers nothing any more.
    """
    found = {
        place: ScoredRow.failed(row.user_id, row.error or "") for place, row in enumerate(rows) if row.request is None
    }
    asked = [(place, row.user_id, row.request) for place, row in enumerate(rows) if row.request is not None]
    asked.sort(key=lambda entry: len(entry[2].history))  # stable, so of one length they stay in order
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        outcomes = _outcomes(recommender, [request for _, _, request in batch])
        for (place, user_id, _), outcome in zip(batch, outcomes, strict=True):
            found[place] = _scored(user_id, outcome)
        told(len(found))
    return [found[place] for place in range(len(rows))]


def _scored(user_id: str | None, outcome: Answer | GenrecError) -> ScoredRow:
    return ScoredRow.of(user_id, outcome) if isinstance(outcome, Answer) else ScoredRow.failed(user_id, str(outcome))


def _outcomes(recommender: Recommender, requests: Sequence[Request]) -> list[Answer | GenrecError]:
    outcomes = _halved(recommender, requests)
    if isinstance(outcomes[-1], GenrecError):
        _prove_alive(recommender)
    return outcomes


def _halved(recommender: Recommender, requests: Sequence[Request]) -> list[Answer | GenrecError]:
    """What comes of a batch; of one that fails, or is too large for the memory, what comes of its halves."""
    try:
        return list(recommender.attempt(requests))
    except Exception as error:  # whatever the libraries below raise: by halving it is found whose fault it is
        if len(requests) == 1:
            log.exception("a row failed")
            named = error if isinstance(error, GenrecError) else None
            return [named or EngineError(f"inference failed with {type(error).__name__}.")]
        log.warning("a batch of %d rows failed with %s; its halves are asked", len(requests), type(error).__name__)
    middle = len(requests) // 2
    return [*_halved(recommender, requests[:middle]), *_halved(recommender, requests[middle:])]


def _prove_alive(recommender: Recommender) -> None:
    """An engine that is gone fails every row: a row is to blame only where the golden requests are still answered."""
    try:
        recommender.replay_golden()
    except Exception as error:
        raise EngineError(
            "the engine no longer answers the bundle's golden requests; start again to go on, finished parts are kept."
        ) from error
