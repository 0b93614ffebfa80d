"""POST /recommend and its batch."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from pydantic import ValidationError

from genrec import requests as domain
from genrec.answers import Answer
from genrec.errors import EngineError, GenrecError, RequestError
from genrec.recommender import Recommender
from service.batcher import Work
from service.calls import Served
from service.errors import problem_of
from service.json_body import JsonRoute
from service.metrics import Metrics
from service.middleware import RequestRecord, record_of
from service.routes.answering import account_for, time_taken, while_connected
from service.schemas import BatchAnswer, BatchRequest, Problem, RecommendAnswer, RecommendRequest, TimingMs
from service.state import ServiceState, StateOf
from service.translation import to_answer, to_checked_request
from service.validation import refusal

router = APIRouter(tags=["recommend"], route_class=JsonRoute)


@router.post("/recommend", summary="The same as /v1/recommend")
@router.post("/v1/recommend", summary="The next items for a history")
async def recommend(sent: RecommendRequest, request: Request, state: StateOf) -> RecommendAnswer:
    """Items for one history, best first, each with its score, probability, semantic ID and metadata."""
    record = record_of(request.scope)
    record.request_id = sent.request_id or record.request_id
    recommender = state.inference.recommender
    asked = to_checked_request(sent, recommender, state.settings)
    deadline = record.started + (sent.timeout_ms or state.settings.default_timeout_ms) / 1e3
    work = EXPLAIN if sent.explain else RECOMMEND
    [served] = await while_connected(request, state.ask(recommender, work, [asked], deadline))
    if isinstance(served.outcome, GenrecError):
        raise served.outcome
    timing = time_taken(served.outcome.timing, served.queue_ms, record)
    record.timing_ms |= {"queue": timing.queue, "encode": timing.encode, "decode": timing.decode}
    _account(state.metrics, asked, served.outcome, timing)
    record.facts |= {
        "k": asked.k,
        "history_items": len(asked.history),
        "unknown_items": len(served.outcome.unknown_items),
        "items": len(served.outcome.items),
        "batch": served.batch_requests,
    }
    return to_answer(served.outcome, sent, served.recommender, record.request_id, timing)


@router.post("/v1/recommend/batch", summary="Several histories in one call")
async def recommend_batch(sent: BatchRequest, request: Request, state: StateOf) -> BatchAnswer:
    """An answer or a problem for each request, in order. All are admitted together, at the cost of each, or none."""
    if len(sent.requests) > state.settings.max_batch_requests:
        raise RequestError(f"A batch holds at most {state.settings.max_batch_requests} requests.", "/requests")
    record = record_of(request.scope)
    recommender = state.inference.recommender
    read = [_read(raw, recommender, state) for raw in sent.requests]
    fit = [pair for pair in read if not isinstance(pair, GenrecError)]
    record.facts |= {"requests": len(read), "refused": len(read) - len(fit)}
    served: list[Served[Answer]] = []
    if fit:
        timeouts = [one.timeout_ms or state.settings.default_timeout_ms for one, _ in fit]
        deadline = record.started + min(timeouts) / 1e3
        asked = [one for _, one in fit]
        served = await while_connected(request, state.ask(recommender, RECOMMEND, asked, deadline))
    in_order = iter(served)
    return BatchAnswer(
        results=[
            problem_of(one, f"{record.request_id}.{place}")
            if isinstance(one, GenrecError)
            else _result(one, next(in_order), f"{record.request_id}.{place}", record, state.metrics)
            for place, one in enumerate(read)
        ]
    )


def _attempt(recommender: Recommender, requests: Sequence[domain.Request]) -> Sequence[Answer | EngineError]:
    return recommender.attempt(requests)


RECOMMEND = Work(_attempt, lambda recommender, request: recommender.beam_rows(request))


def _explain(recommender: Recommender, requests: Sequence[domain.Request]) -> Sequence[Answer]:
    return [recommender.explain(request) for request in requests]


EXPLAIN = Work(_explain, lambda recommender, request: recommender.beam_rows(request))


def _read(
    raw: object, recommender: Recommender, state: ServiceState
) -> tuple[RecommendRequest, domain.Request] | RequestError:
    try:
        sent = RecommendRequest.model_validate(raw)
        if sent.explain:
            raise RequestError("A batch is not explained; ask /recommend for this one alone.", "/explain")
        return sent, to_checked_request(sent, recommender, state.settings)
    except ValidationError as error:
        return refusal(error.errors(include_url=False), raw)
    except RequestError as error:
        return error


def _result(
    pair: tuple[RecommendRequest, domain.Request],
    served: Served[Answer],
    own_id: str,
    record: RequestRecord,
    metrics: Metrics,
) -> RecommendAnswer | Problem:
    sent, asked = pair
    request_id = sent.request_id or own_id
    if isinstance(served.outcome, GenrecError):
        return problem_of(served.outcome, request_id)
    timing = time_taken(served.outcome.timing, served.queue_ms, record)
    _account(metrics, asked, served.outcome, timing)
    return to_answer(served.outcome, sent, served.recommender, request_id, timing)


def _account(metrics: Metrics, asked: domain.Request, answer: Answer, timing: TimingMs) -> None:
    account_for(metrics, timing, asked.history, answer.unknown_items)
    if not answer.history_used:
        metrics.fallback.labels("unknown_history" if asked.history else "empty_history").inc()
    if len(answer.items) < asked.k:
        metrics.results_short.inc()
