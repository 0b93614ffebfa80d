"""POST /v1/score: the scores of candidates that the caller has already."""

from collections.abc import Sequence

from fastapi import APIRouter, Request

from genrec import answers, requests
from genrec.errors import GenrecError
from genrec.recommender import Recommender
from service.batcher import Work
from service.json_body import JsonRoute
from service.middleware import record_of
from service.routes.answering import account_for, time_taken, while_connected
from service.schemas import ScoreAnswer, ScoreRequest
from service.state import StateOf
from service.translation import to_checked_score_request, to_score_answer

router = APIRouter(tags=["recommend"], route_class=JsonRoute)


@router.post("/v1/score", summary="The scores of given items for a history")
async def score(sent: ScoreRequest, request: Request, state: StateOf) -> ScoreAnswer:
    """The exact score and probability of each candidate, in the order sent: for reranking, without a search."""
    record = record_of(request.scope)
    record.request_id = sent.request_id or record.request_id
    recommender = state.inference.recommender
    asked = to_checked_score_request(sent, recommender, state.settings)
    deadline = record.started + (sent.timeout_ms or state.settings.default_timeout_ms) / 1e3
    [served] = await while_connected(request, state.ask(recommender, SCORE, [asked], deadline))
    if isinstance(served.outcome, GenrecError):
        raise served.outcome
    timing = time_taken(served.outcome.timing, served.queue_ms, record)
    record.timing_ms |= {"queue": timing.queue, "encode": timing.encode, "decode": timing.decode}
    account_for(state.metrics, timing, asked.history, served.outcome.unknown_items)
    state.metrics.candidates.observe(len(asked.candidates))
    record.facts |= {
        "history_items": len(asked.history),
        "unknown_items": len(served.outcome.unknown_items),
        "candidates": len(asked.candidates),
        "items": len(served.outcome.items),
    }
    record.facts["batch"] = served.batch_requests
    return to_score_answer(served.outcome, served.recommender, record.request_id, timing)


def _score(recommender: Recommender, asked: Sequence[requests.ScoreRequest]) -> Sequence[answers.ScoreAnswer]:
    return [recommender.score(request) for request in asked]


SCORE = Work(_score, lambda _, asked: max(1, len(asked.candidates)))
