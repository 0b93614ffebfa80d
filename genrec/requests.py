"""What can be asked of a recommender, in ids. Knows no catalog; what fits one, `Recommender` checks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from genrec.errors import RequestError
from genrec.filters import Filter


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks.

    Attributes:
        history: item ids, oldest first. Unknown ones are dropped and listed, then the newest are kept.
        k: how many items to answer; exactly min(k, allowed items) come back.
        exclude: item ids not to answer.
        exclude_history: whether nothing of `history`, as sent, is answered; None leaves it to the bundle.
        num_beams: the width of the search, at least k; None is the larger of the bundle's and k.
        fallback: what a history without a known item is answered with: the most popular items, or nothing.
        filter: which items may be answered; None allows all.
        prove_exact: whether to search again with wider beams until the answer is proven to be the k best, or the
            recommender's `max_proof_beams` are spent. `Answer.exact` says which.
    """

    history: Sequence[str]
    k: int = 10
    exclude: Sequence[str] = ()
    exclude_history: bool | None = None
    num_beams: int | None = None
    fallback: Literal["popular", "none"] = "popular"
    filter: Filter | None = None
    prove_exact: bool = False

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """A request of the fields of a JSON object, a filter as an object within it.

        Raises:
            RequestError: a field is unknown, missing or of another type.
        """
        for name, value in fields.items():
            if name not in _IS_OF_ITS_TYPE:
                raise RequestError(f"A request has no field {name[:100]!r}.")
            if not _IS_OF_ITS_TYPE[name](value):
                raise RequestError(f"{name} is of another type.", f"/{name}")
        if "history" not in fields:
            raise RequestError("A request needs a history.", "/history")
        asked = fields.get("filter")
        return cls(**{**fields, "filter": None if asked is None else Filter(**asked)})


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item_id, str) for item_id in value)


def _is_filter(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= {"include_ids", "where"}
        and (value.get("include_ids") is None or _is_ids(value["include_ids"]))
        and (value.get("where") is None or isinstance(value["where"], dict))
    )


_IS_OF_ITS_TYPE: Mapping[str, Callable[[Any], bool]] = {
    "history": _is_ids,
    "k": lambda value: type(value) is int,
    "exclude": _is_ids,
    "exclude_history": lambda value: value is None or type(value) is bool,
    "num_beams": lambda value: value is None or type(value) is int,
    "fallback": lambda value: value in ("popular", "none"),
    "filter": lambda value: value is None or _is_filter(value),
    "prove_exact": lambda value: type(value) is bool,
}


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Items whose scores are wanted, whether or not a search would find them.

    Attributes:
        history: item ids, oldest first. Unknown ones are dropped and listed, then the newest are kept.
        candidates: item ids; repeats are fine, unknown ones are listed.
        exclude_history: whether the model may not say an item of `history`: its probability is 0 then, and that of the
            others larger.
        filter: which other items the model may say; None allows all that are in stock.
    """

    history: Sequence[str]
    candidates: Sequence[str]
    exclude_history: bool = False
    filter: Filter | None = None
