"""Generative recommendation: semantic IDs, item tokens, the trie, decoding, the bundle, and the recommender.

Knows neither HTTP nor LoRA. Importing it does nothing: `Recommender` and its companions are loaded on first use, so
that a command which needs no model does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.filters import Filter
    from genrec.recommender import Answer, Recommender, Request, ScoredItem

__all__ = ["Answer", "Filter", "Recommender", "Request", "ScoredItem"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562: the type is the attribute's own)
    if name in __all__:
        return getattr(import_module("genrec.recommender"), name)
    raise AttributeError(f"module 'genrec' has no attribute {name!r}")
