"""The wire types of HTTP: what a caller sends and what comes back.

Strict on the way in: no unknown field, no "5" for a number, no true for 1. Knows no framework and no engine. Only what
works is here; later features add their fields when they do.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, SkipValidation, Tag

from service.explanation_schemas import Explanation

REQUEST_ID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
MAX_LIST_ITEMS = 10_000
"""No list of a request is longer; settings can only lower it."""

ItemId = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$", description="Byte-exact, never normalised."),
]


class _Sent(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Answered(BaseModel):
    model_config = ConfigDict(frozen=True)


class HistoryItem(_Sent):
    """An item of a history with what is known of the event."""

    item_id: ItemId
    event: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Kind of interaction; read by models that know events, ignored by others."
    )


def _form(value: object) -> str | None:
    if isinstance(value, str):
        return "as id"
    return "as object" if isinstance(value, dict | HistoryItem) else None


HistoryEntry = Annotated[
    Annotated[ItemId, Tag("as id")] | Annotated[HistoryItem, Tag("as object")],
    Discriminator(
        _form,
        custom_error_type="history_entry",
        custom_error_message="Input should be an item id as a string, or an object with item_id",
    ),
]


History = Annotated[
    list[HistoryEntry],
    Field(
        max_length=MAX_LIST_ITEMS,
        fail_fast=True,
        description="Item ids, oldest first. Unknown ones are dropped and listed, then the newest are kept.",
    ),
]
RequestId = Annotated[
    Annotated[str, Field(pattern=REQUEST_ID_PATTERN)] | None,
    Field(description="Comes back in the answer. Null: X-Request-ID, or a fresh one."),
]
TimeoutMs = Annotated[
    Annotated[int, Field(ge=1, le=600_000)] | None,
    Field(description="After this long the answer is 504. Null: the service's default."),
]


class RequestFilter(_Sent):
    """Which items may be answered. Both parts have to allow an item; null allows all.

    `where` is an object of columns, each an object of operators: `eq` and `in` (columns of single values), `any_of` and
    `none_of` (also lists), `gte` and `lte` (numbers and strings). All of them have to hold. `and` and `or` take a list
    of such objects, `not` takes one. An item without a value in a column fulfils neither a condition on it nor its
    opposite. `/info` lists the columns and their types.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"where": {"genres": {"any_of": ["Drama"]}, "year": {"gte": 1990, "lte": 1999}}},
                {"where": {"or": [{"year": {"gte": 1990}}, {"not": {"genres": {"any_of": ["Horror", "War"]}}}]}},
                {"include_ids": ["50", "181", "172"]},
            ]
        }
    )

    include_ids: Annotated[list[ItemId], Field(max_length=MAX_LIST_ITEMS, fail_fast=True)] | None = Field(
        default=None, description="Nothing but these items; unknown ones are ignored."
    )
    # Any keys: what they may be is the catalog's to say, and to say without repeating them.
    where: dict[Any, Any] | None = Field(default=None, description="Conditions on metadata columns.")


class RecommendRequest(_Sent):
    """A user's history and what is wanted for it. Only `history` is required."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": ["50", "181"], "k": 10},
                {"history": ["50", "181"], "filter": {"where": {"year": {"gte": 1990}}}},
            ]
        }
    )

    history: History
    k: int = Field(default=10, ge=1, le=10_000, description="How many items; the bundle's max_k is in /info.")
    exclude_history: bool | None = Field(
        default=None, description="Never answer an item of the history as sent. Null: as the bundle says."
    )
    exclude: Annotated[list[ItemId], Field(max_length=MAX_LIST_ITEMS, fail_fast=True)] = Field(
        default=[], description="Items never to answer; unknown ones are ignored."
    )
    filter: RequestFilter | None = Field(default=None, description="Which items may be answered. Null: all of them.")
    fields: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=256, fail_fast=True)] | None = (
        Field(default=None, description="Metadata columns to return: null for all of them, [] for none.")
    )
    num_beams: int | None = Field(
        default=None, ge=1, le=10_000, description="Beam width, at least k. Null: the larger of the bundle's and k."
    )
    fallback: Literal["popular", "none"] = Field(
        default="popular", description="What an empty or wholly unknown history is answered with."
    )
    prove_exact: bool = Field(
        default=False,
        description="Widen the beam and search again until the answer is proven to be the best items, or the service's "
        "max_proof_beams are spent; `exact` says which. Costs several searches.",
    )
    explain: bool = Field(
        default=False, description="Tell how the search went, level by level. Slower; not in a batch."
    )
    request_id: RequestId = None
    timeout_ms: TimeoutMs = None


class ScoreRequest(_Sent):
    """A history, and the items whose scores are wanted for it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"history": ["50", "181"], "candidates": ["172", "1"]}]})

    history: History
    candidates: Annotated[list[ItemId], Field(max_length=MAX_LIST_ITEMS, fail_fast=True)] = Field(
        description="Item ids; unknown ones are listed. How many is in /info."
    )
    exclude_history: bool = Field(
        default=False, description="Compute probabilities as if no item of the history could be answered."
    )
    filter: RequestFilter | None = Field(
        default=None, description="Compute probabilities as if only these items could be answered. Null: all of them."
    )
    request_id: RequestId = None
    timeout_ms: TimeoutMs = None


class BatchRequest(_Sent):
    """Several requests answered as one: admitted together, at the cost of each, or not at all.

    Their deadline is the shortest `timeout_ms` among them.
    """

    # Validated one by one in the route, so that a bad one is a problem in its own place.
    requests: Annotated[list[SkipValidation[RecommendRequest]], Field(min_length=1, max_length=MAX_LIST_ITEMS)]


class Problem(_Answered):
    """An error (RFC 9457). `code` is for programs, `detail` for people; nothing that was sent is repeated."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    pointer: str | None = Field(default=None, description="JSON pointer to the field that was refused.")


class BundleName(_Answered):
    """Which bundle answered."""

    name: str
    version: str


class RecommendedItem(_Answered):
    """One item of an answer. `score` and `probability` are null unless it came from the model."""

    rank: int = Field(description="From 1.")
    item_id: str
    score: float | None = Field(description="Hugging Face's sequences_scores; what items are ranked by.")
    probability: float | None = Field(description="Under the model, constrained to the allowed items.")
    semantic_id: list[int]
    source: Literal["model", "popular"]
    metadata: dict[str, Any]


class TimingMs(_Answered):
    """Where the time went, in milliseconds."""

    queue: float
    encode: float
    decode: float
    total: float


class RecommendAnswer(_Answered):
    """Exactly min(k, allowed) items, best first."""

    request_id: str
    bundle: BundleName
    items: list[RecommendedItem]
    catalog_version: int
    history_used: int
    unknown_items: list[str]
    truncated: bool
    exact: bool | None = Field(description="Proven: no other allowed item scores higher than the last one.")
    explain: Explanation | None = Field(
        default=None, description="How the search went, if that was asked and the model was."
    )
    timing_ms: TimingMs


class ScoredCandidate(_Answered):
    """A candidate. `score` and `probability` are null where no item of the history is known."""

    item_id: str
    score: float | None = Field(description="What a search that finds the item gives it.")
    probability: float | None = Field(
        description="Under the model, constrained to the items that may be answered; 0 for any other."
    )


class ScoreAnswer(_Answered):
    """The known candidates in the order sent."""

    request_id: str
    bundle: BundleName
    items: list[ScoredCandidate]
    unknown_candidates: list[str]
    catalog_version: int
    history_used: int
    unknown_items: list[str]
    truncated: bool
    timing_ms: TimingMs


class BatchAnswer(_Answered):
    """An answer or a problem for each request, in their order. A problem's pointer is within its own request."""

    results: list[RecommendAnswer | Problem]


class Item(_Answered):
    """An item of the catalog."""

    item_id: str
    semantic_id: list[int]
    popularity: int = Field(description="How often it occurs in the training interactions.")
    metadata: dict[str, Any]


class ItemList(_Answered):
    """The first items that match, and how many match."""

    items: list[Item]
    total: int


class SimilarItem(Item):
    """A neighbour in the tree of semantic IDs."""

    shared_levels: int = Field(description="How many leading codes are the same.")


class SimilarItems(_Answered):
    """Neighbours, those that share most codes first, then the most popular."""

    items: list[SimilarItem]
