"""The bundle: an immutable directory, the only thing that passes from training to serving.

`manifest` says what it is, `layout` where its files are, `write` makes drafts and seals them, `contents` reads every
file once, `verify` and `load` check and build, `shelf` finds bundles by name. These names are loaded on first use: who
only wants a file's digest does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.bundle.load import Bundle, load_bundle, load_draft
    from genrec.bundle.manifest import Generation, Manifest, PromptPieces
    from genrec.bundle.shelf import Shelf
    from genrec.bundle.write import seal, write_draft

__all__ = [
    "Bundle",
    "Generation",
    "Manifest",
    "PromptPieces",
    "Shelf",
    "load_bundle",
    "load_draft",
    "seal",
    "write_draft",
]

_HOMES = {
    "Bundle": "genrec.bundle.load",
    "Generation": "genrec.bundle.manifest",
    "Manifest": "genrec.bundle.manifest",
    "PromptPieces": "genrec.bundle.manifest",
    "Shelf": "genrec.bundle.shelf",
    "load_bundle": "genrec.bundle.load",
    "load_draft": "genrec.bundle.load",
    "seal": "genrec.bundle.write",
    "write_draft": "genrec.bundle.write",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562: the type is the attribute's own)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'genrec.bundle' has no attribute {name!r}")
