"""Generative recommendation: semantic IDs, item tokens, the trie, decoding, the bundle, and the recommender.

Knows neither HTTP nor LoRA. Importing it does nothing: `Recommender` and its companions are loaded on first use, so
that a command which needs no model does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.answers import Answer, ScoreAnswer, ScoredCandidate, ScoredItem
    from genrec.filters import Filter
    from genrec.recommender import Recommender
    from genrec.requests import Request, ScoreRequest

__all__ = [
    "Answer",
    "Filter",
    "Recommender",
    "Request",
    "ScoreAnswer",
    "ScoreRequest",
    "ScoredCandidate",
    "ScoredItem",
]

_HOMES = {
    "Answer": "genrec.answers",
    "Filter": "genrec.filters",
    "Recommender": "genrec.recommender",
    "Request": "genrec.requests",
    "ScoreAnswer": "genrec.answers",
    "ScoreRequest": "genrec.requests",
    "ScoredCandidate": "genrec.answers",
    "ScoredItem": "genrec.answers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562: the type is the attribute's own)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'genrec' has no attribute {name!r}")
