"""What each operation sends, and what a reply to it means. Knows no socket: both clients send these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, Required, TypedDict, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from service.client.errors import ServiceError, TimedOut, Unavailable
from service.operations_schemas import Info, ModelCard, Status
from service.schemas import BatchAnswer, Item, ItemList, Problem, RecommendAnswer, ScoreAnswer, SimilarItems
from service.tree_schemas import Tree

Read = TypeVar("Read", bound=BaseModel)

# As sent: the wire types of requests say what each field means and takes.
HistoryEntry = str | Mapping[str, str | None]


class RecommendFields(TypedDict, total=False):
    """The fields of `service.schemas.RecommendRequest` but the history."""

    k: int
    exclude_history: bool | None
    exclude: Sequence[str]
    filter: Mapping[str, Any] | None
    fields: Sequence[str] | None
    num_beams: int | None
    fallback: Literal["popular", "none"]
    prove_exact: bool
    explain: bool
    request_id: str | None
    timeout_ms: int | None


class RecommendBody(RecommendFields, total=False):
    """One request of a batch."""

    history: Required[Sequence[HistoryEntry]]


class ScoreFields(TypedDict, total=False):
    """The fields of `service.schemas.ScoreRequest` but history and candidates."""

    exclude_history: bool
    filter: Mapping[str, Any] | None
    request_id: str | None
    timeout_ms: int | None


@dataclass(frozen=True, slots=True)
class Call(Generic[Read]):
    """One request. All of them may be sent twice: none changes anything.

    Attributes:
        answer: what a 200 is read as. Fields that it does not know are ignored, so a newer service can be asked.
        query: parameters after the question mark.
        body: sent as JSON if there is one.
    """

    method: Literal["GET", "POST"]
    path: str
    answer: type[Read]
    query: Mapping[str, str | int] | None = None
    body: Mapping[str, Any] | None = None

    def read(self, reply: httpx.Response) -> Read | ServiceError:
        """The answer, or what the service said instead."""
        if reply.status_code != 200:
            return _error(reply)
        try:
            return self.answer.model_validate_json(reply.content)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            return ServiceError(f"{self.path} answered what is no {self.answer.__name__}: {wrong['msg']}.")


def recommend(history: Sequence[HistoryEntry], fields: RecommendFields) -> Call[RecommendAnswer]:
    """The next items for a history."""
    return Call("POST", "/v1/recommend", RecommendAnswer, body=_body(fields, history=history))


def recommend_batch(requests: Sequence[RecommendBody]) -> Call[BatchAnswer]:
    """Several at once."""
    return Call("POST", "/v1/recommend/batch", BatchAnswer, body={"requests": [_body(one) for one in requests]})


def score(history: Sequence[HistoryEntry], candidates: Sequence[str], fields: ScoreFields) -> Call[ScoreAnswer]:
    """The scores of given items."""
    return Call("POST", "/v1/score", ScoreAnswer, body=_body(fields, history=history, candidates=candidates))


def items(q: str, limit: int) -> Call[ItemList]:
    """A search by title."""
    return Call("GET", "/v1/items", ItemList, query={"q": q, "limit": limit})


def item(item_id: str) -> Call[Item]:
    """One item."""
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}", Item)


def similar(item_id: str, limit: int) -> Call[SimilarItems]:
    """Its neighbours by semantic ID."""
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}/similar", SimilarItems, query={"limit": limit})


def tree(prefix: Sequence[int], limit: int) -> Call[Tree]:
    """What lies below a prefix of semantic IDs."""
    return Call("GET", "/v1/tree", Tree, query={"prefix": ",".join(map(str, prefix)), "limit": limit})


def bundle() -> Call[ModelCard]:
    """How good the bundle was measured to be."""
    return Call("GET", "/v1/bundle", ModelCard)


def info() -> Call[Info]:
    """What is served, and what it allows."""
    return Call("GET", "/info", Info)


HEALTH = Call("GET", "/health", Status)
READY = Call("GET", "/ready", Status)


def no_answer(error: httpx.RequestError | TimeoutError) -> ServiceError:
    """What it means that no reply came."""
    meaning: ServiceError
    kind = type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        meaning = Unavailable(f"The service cannot be reached ({kind}).")
    elif isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        meaning = Unavailable(f"The connection was lost before the answer ({kind}).")
    elif isinstance(error, httpx.TimeoutException | TimeoutError):
        meaning = TimedOut(f"The time ran out before the answer ({kind}).")
    else:
        meaning = ServiceError(f"The request could not be sent, or its reply not be read ({kind}).")
    meaning.__cause__ = error
    return meaning


def _error(reply: httpx.Response) -> ServiceError:
    problem = _problem(reply)
    kind = {429: Unavailable, 503: Unavailable, 504: TimedOut}.get(problem.status, ServiceError)
    where = f" ({problem.pointer})" if problem.pointer else ""
    return kind(f"{problem.status} {problem.code}: {problem.detail}{where}", problem, _retry_after_s(reply))


def _problem(reply: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(reply.content)
    except ValidationError:  # something between the service and us has answered
        return Problem(
            title=reply.reason_phrase,
            status=reply.status_code,
            code="no_problem_document",
            detail="What answered is not the service, or not of this version.",
            request_id=reply.headers.get("x-request-id", ""),
        )


def _retry_after_s(reply: httpx.Response) -> float | None:
    """Seconds or a date, as RFC 9110 allows; None for anything else."""
    given = reply.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        when = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _body(fields: Mapping[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    return {name: list(value) if isinstance(value, tuple) else value for name, value in {**more, **fields}.items()}
