"""What an engine is: prompts in, beams out.

Every engine gives the same items and scores; they differ in speed and in what they need of a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from genrec.allowed import AllowedItems
from genrec.errors import EngineError, IllegalBeam, InvalidOutput


@dataclass(frozen=True, eq=False)
class Query:
    """One request as the decoder sees it.

    Attributes:
        prompt: token ids of the history.
        allowed: the rows that may be answered; at least one.
    """

    prompt: Sequence[int]
    allowed: AllowedItems


@dataclass(frozen=True, eq=False)
class Beam:
    """The finished hypotheses of one query, best first, ties by row. W = min(beams, allowed items).

    Attributes:
        rows: ``(W,)`` int64, distinct rows of the catalog.
        scores: ``(W,)`` float64: log-softmax over the full vocabulary, summed over the L item tokens, divided by
            ``L ** length_penalty``. Hugging Face's `sequences_scores`.
        log_probabilities: ``(W,)`` float64, nats: the same path with every level renormalised over the children that
            lead to an allowed item.
        bound: the highest score that any prefix pruned on the way could still have reached; ``-inf`` if none was.
            Log-probabilities are never positive, so a prefix's own sum is such a bound.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    log_probabilities: npt.NDArray[np.float64]
    bound: float

    @classmethod
    def ranked(
        cls,
        rows: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float64],
        log_probabilities: npt.NDArray[np.float64],
        bound: float,
    ) -> "Beam":
        """Put hypotheses in order: score descending, then row.

        Raises:
            EngineError: a score is NaN or infinite, or a row occurs twice.
        """
        if not np.isfinite(scores).all():
            raise InvalidOutput("the model gave a score that is not finite; its answer cannot be trusted.")
        if len(np.unique(rows)) != len(rows):
            raise IllegalBeam("the search returned one item twice; its answer cannot be trusted.")
        order = np.lexsort((rows, -scores))
        return cls(rows[order], scores[order], log_probabilities[order], bound)

    def proves(self, k: int) -> bool:
        """Whether the first k hypotheses are certainly the k best: nothing pruned could have beaten the k-th."""
        return len(self.rows) < k or bool(self.bound <= self.scores[k - 1])


@dataclass(frozen=True, eq=False)
class Scores:
    """Exact scores of named rows, in the order asked.

    Attributes:
        scores: ``(n,)`` float64, as `Beam.scores`.
        log_probabilities: ``(n,)`` float64, as `Beam.log_probabilities`; -inf for a row that the query does not allow.
    """

    scores: npt.NDArray[np.float64]
    log_probabilities: npt.NDArray[np.float64]


class Steps(Protocol):
    """A model at one prompt, walked level by level with W beams. Level 0 is predicted from one beam, the root."""

    def log_probs(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """``(W, n)`` log-softmax over the full vocabulary at `tokens` of this level, ``(n,)``, after each beam."""
        ...

    def step(self, tokens: npt.NDArray[np.integer], parents: npt.NDArray[np.integer]) -> None:
        """Go on to the next level: ``(W',)`` tokens, each appended to the beam at that place of ``(W',)`` parents."""
        ...


class Engine(Protocol):
    """Constrained beam search over one model and one trie."""

    @property
    def name(self) -> str:
        """How settings and answers call it."""
        ...

    def search(self, queries: Sequence[Query], num_beams: int) -> list[Beam | EngineError]:
        """The best `num_beams` allowed items of each query, in query order.

        A query for which the model gave a value that is not finite gets the error in its place; the others are
        untouched.
        """
        ...

    def score(self, query: Query, rows: npt.NDArray[np.int64]) -> Scores:
        """The exact score of each of `rows`, whether or not the query allows it, without a search.

        Raises:
            EngineError: the model gave a value that is not finite.
        """
        ...

    def steps(self, query: Query, num_beams: int) -> Steps:
        """The model at the query's prompt, to be walked with at most `num_beams` beams."""
        ...
