"""What can be asked of a recommender, in ids. Knows no catalog; what fits one, `Recommender` checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
