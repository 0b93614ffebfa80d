"""What a recommender answers, in ids and rows."""

from dataclasses import dataclass
from typing import Literal

from genrec.decoding.explain import Explanation
from genrec.semantic_id import SemanticId


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """One item of an answer. `score` and `probability` are None for an item that did not come from the model."""

    item_id: str
    row: int
    semantic_id: SemanticId
    score: float | None
    probability: float | None
    source: Literal["model", "popular"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds spent on the batch that a request was part of."""

    encode_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The items for one request, best first.

    Attributes:
        items: min(k, allowed items) of them, distinct.
        history_used: how many items of the history the model saw.
        unknown_items: ids of the history that the catalog does not have, in order.
        truncated: whether older items of the history were left out.
        exact: whether no other allowed item can score higher than the last one given; None without a model.
        catalog_version: of the availability that the answer was made under.
        timing: of the batch.
        explanation: how the search went, if `Recommender.explain` made it; None where the model was not asked.
    """

    items: tuple[ScoredItem, ...]
    history_used: int
    unknown_items: tuple[str, ...]
    truncated: bool
    exact: bool | None
    catalog_version: int
    timing: Timing
    explanation: Explanation | None = None

    @property
    def scored_list(self) -> list[tuple[str, float]]:
        """Item ids and scores of the items that came from the model."""
        return [(item.item_id, item.score) for item in self.items if item.score is not None]


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate and what the model thinks of it.

    Attributes:
        item_id: as sent.
        score: exactly what a search that finds the item gives it; None if the model was not asked.
        probability: under the model when it may only say allowed items; 0 for an item that is not one of them, None if
            the model was not asked.
    """

    item_id: str
    score: float | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """The scores of the candidates of one request.

    Attributes:
        items: the candidates that the catalog has, in the order sent, repeats included.
        unknown_candidates: those that it does not have, in order.
        history_used, unknown_items, truncated, catalog_version: as in `Answer`. With `history_used` 0 the model was not
            asked.
        timing: of this request.
    """

    items: tuple[ScoredCandidate, ...]
    unknown_candidates: tuple[str, ...]
    history_used: int
    unknown_items: tuple[str, ...]
    truncated: bool
    catalog_version: int
    timing: Timing
