"""The bundle that a run goes on from: what it published, and what it has seen.

Knows the files of a sealed bundle. Knows nothing of stages; its weights are for `vocabulary` to load.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genrec.bundle import Manifest, layout
from genrec.bundle.catalog import read_catalog
from genrec.bundle.manifest import read_sealed_manifest
from genrec.errors import BundleError, RecipeError
from genrec.semantic_id import Catalog
from training.published import RETIRED, PublishedIds, read_retired
from training.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class BaseBundle:
    """A sealed bundle without its model.

    Attributes:
        path: Its directory.
        manifest: Its facts.
        catalog: Its items.
        published: The semantic IDs that its items have, and those that items before them had.
    """

    path: Path
    manifest: Manifest
    catalog: Catalog
    published: PublishedIds

    @classmethod
    def open(cls, path: Path) -> "BaseBundle":
        """Read a bundle's manifest and catalog; their bytes are those that were sealed.

        Raises:
            BundleError: It is no sealed bundle, or a file that is read here is damaged.
        """
        manifest = read_sealed_manifest(path)
        catalog = read_catalog(_sealed_bytes(path, manifest, layout.ITEMS), manifest.item_tokens)
        retired = _sealed_bytes(path, manifest, RETIRED) if RETIRED in manifest.files else None
        published = PublishedIds(catalog.item_ids.to_pylist(), catalog.codes)
        return cls(path, manifest, catalog, published.and_those(read_retired(retired, catalog.num_levels)))

    def has(self, name: str) -> bool:
        """Whether the bundle lists a file of this name."""
        return name in self.manifest.files

    def read(self, name: str) -> bytes:
        """The bytes of a file, as they were sealed.

        Raises:
            BundleError: There is no such file, or it is damaged.
        """
        return _sealed_bytes(self.path, self.manifest, name)

    def quantizer(self) -> Path:
        """The directory of the saved embedder and quantizer, after a look at its bytes.

        Raises:
            BundleError: A file in it is damaged.
        """
        for name in self.manifest.files:
            if name.startswith("quantizer/"):
                self.read(name)
        return self.path / "quantizer"

    @property
    def origin(self) -> Mapping[str, str]:
        """What provenance says of it."""
        return {"name": self.manifest.name, "version": self.manifest.version}


def open_base(recipe: Recipe) -> BaseBundle | None:
    """The bundle that a recipe goes on from, None if it begins anew.

    Raises:
        BundleError: as `BaseBundle.open`.
        RecipeError: Its model is of another architecture than the recipe's.
    """
    if recipe.base is None:
        return None
    base = BaseBundle.open(Path(recipe.base.bundle))
    if base.manifest.architecture != recipe.model.architecture:
        raise RecipeError(
            f"base.bundle {recipe.base.bundle} is {base.manifest.architecture}, but model.architecture is "
            f"{recipe.model.architecture}; its weights can go on as what they are only, so set it to "
            f'"{base.manifest.architecture}".'
        )
    return base


def _sealed_bytes(root: Path, manifest: Manifest, name: str) -> bytes:
    if name not in manifest.files:
        raise BundleError(f"file {name} is missing.")
    with layout.open_plain(root, name) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != manifest.files[name].sha256:
        raise BundleError(f"file {name} of {root} has other bytes than when it was sealed: it is damaged.")
    return content
