"""The bundle: an immutable directory, the only thing that passes from training to serving.

`manifest` says what it is, `layout` where its files are, `write` makes drafts and seals them, `contents` reads every
file once, `verify` and `load` check and build, `shelf` finds bundles by name.
"""

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
