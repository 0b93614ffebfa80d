"""Between the wire and the domain: a request as sent to one the recommender takes, its answer to one we send."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genrec import answers, requests
from genrec.answers import Answer
from genrec.errors import RequestError
from genrec.filters import Filter
from genrec.requests import Request
from service.explanation_schemas import Explanation
from service.schemas import (
    BundleName,
    HistoryItem,
    Item,
    RecommendAnswer,
    RecommendedItem,
    RecommendRequest,
    RequestFilter,
    ScoreAnswer,
    ScoredCandidate,
    ScoreRequest,
    TimingMs,
)
from service.settings import Settings

if TYPE_CHECKING:  # rows of a file are translated where there is no model
    from genrec.recommender import Recommender


def to_request(sent: RecommendRequest) -> Request:
    """What the recommender is asked, over HTTP and in a file alike."""
    return Request(
        history=_item_ids(sent.history),
        k=sent.k,
        exclude=sent.exclude,
        exclude_history=sent.exclude_history,
        num_beams=sent.num_beams,
        fallback=sent.fallback,
        filter=_filter(sent.filter),
        prove_exact=sent.prove_exact,
    )


def to_checked_request(sent: RecommendRequest, recommender: "Recommender", settings: Settings) -> Request:
    """As `to_request`, held against the bundle and the settings.

    Raises:
        RequestError: it asks for more than this bundle or these settings allow.
    """
    _check_length(sent.history, settings)
    columns = recommender.bundle.catalog.columns
    for place, column in enumerate(sent.fields or ()):
        if column not in columns:
            raise RequestError("The catalog has no such column; /info lists them.", f"/fields/{place}")
    request = to_request(sent)
    recommender.validate(request)
    return request


def to_checked_score_request(
    sent: ScoreRequest, recommender: "Recommender", settings: Settings
) -> requests.ScoreRequest:
    """What the recommender is asked about candidates, held against the bundle and the settings.

    Raises:
        RequestError: it asks for more than this bundle or these settings allow.
    """
    _check_length(sent.history, settings)
    if len(sent.candidates) > settings.max_candidates:
        raise RequestError(f"At most {settings.max_candidates} candidates are scored at once.", "/candidates")
    request = requests.ScoreRequest(
        history=_item_ids(sent.history),
        candidates=sent.candidates,
        exclude_history=sent.exclude_history,
        filter=_filter(sent.filter),
    )
    recommender.validate_score(request)
    return request


def to_answer(
    answer: Answer, sent: RecommendRequest, recommender: "Recommender", request_id: str, timing: TimingMs
) -> RecommendAnswer:
    """What is sent back for an answer."""
    catalog = recommender.bundle.catalog
    return RecommendAnswer(
        request_id=request_id,
        bundle=bundle_name(recommender),
        items=[
            RecommendedItem(
                rank=rank,
                item_id=item.item_id,
                score=item.score,
                probability=item.probability,
                semantic_id=list(item.semantic_id),
                source=item.source,
                metadata=catalog.describe(item.row, sent.fields),
            )
            for rank, item in enumerate(answer.items, start=1)
        ],
        catalog_version=answer.catalog_version,
        history_used=answer.history_used,
        unknown_items=list(answer.unknown_items),
        truncated=answer.truncated,
        exact=answer.exact,
        explain=answer.explanation and Explanation.model_validate(answer.explanation),
        timing_ms=timing,
    )


def to_score_answer(
    answer: answers.ScoreAnswer, recommender: "Recommender", request_id: str, timing: TimingMs
) -> ScoreAnswer:
    """What is sent back for scored candidates."""
    return ScoreAnswer(
        request_id=request_id,
        bundle=bundle_name(recommender),
        items=[
            ScoredCandidate(item_id=item.item_id, score=item.score, probability=item.probability)
            for item in answer.items
        ],
        unknown_candidates=list(answer.unknown_candidates),
        catalog_version=answer.catalog_version,
        history_used=answer.history_used,
        unknown_items=list(answer.unknown_items),
        truncated=answer.truncated,
        timing_ms=timing,
    )


def to_item(recommender: "Recommender", row: int) -> Item:
    """An item of the catalog as sent."""
    catalog = recommender.bundle.catalog
    return Item(
        item_id=catalog.item_id(row),
        semantic_id=list(catalog.semantic_id(row)),
        popularity=int(catalog.popularity[row]),
        metadata=catalog.describe(row),
    )


def bundle_name(recommender: "Recommender") -> BundleName:
    """Which bundle the recommender serves."""
    manifest = recommender.bundle.manifest
    return BundleName(name=manifest.name, version=manifest.version)


def _item_ids(history: Sequence[str | HistoryItem]) -> list[str]:
    return [entry if isinstance(entry, str) else entry.item_id for entry in history]


def _filter(sent: RequestFilter | None) -> Filter | None:
    return None if sent is None else Filter(sent.include_ids, sent.where)


def _check_length(history: Sequence[object], settings: Settings) -> None:
    if len(history) > settings.max_history_items:
        raise RequestError(f"A history holds at most {settings.max_history_items} items.", "/history")
