"""The wire types of the admin listener."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from genrec.bundle.manifest import NAME_PATTERN
from service.schemas import BundleName, ItemId

MAX_CHANGE_ITEMS = 100_000
"""In each list of a change; more go in several changes."""

_Items = Annotated[list[ItemId], Field(max_length=MAX_CHANGE_ITEMS, fail_fast=True)]


class CatalogChange(BaseModel):
    """Items to switch off and on, all together or none."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    off: _Items = Field(default=[], description="Never answered until they are switched on again.")
    on: _Items = Field(default=[])


class CatalogAnswer(BaseModel):
    """Where the catalog stands."""

    model_config = ConfigDict(frozen=True)

    catalog_version: int = Field(description="Every answer carries the one it was made under.")
    items_off: int = Field(description="Items of the bundle served.")
    unknown_items_off: int = Field(description="Ids that this bundle does not have; off in a bundle that has them.")


class CatalogChanged(CatalogAnswer):
    """Where the catalog stands after a change."""

    unknown_items: int = Field(description="Ids of this change that the bundle served does not have.")


class Reload(BaseModel):
    """A bundle to serve from now on."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    bundle: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="The name of its directory under GENREC_BUNDLES_DIR."
    )


class Rollback(BaseModel):
    """Nothing is needed: the bundle that was served before is meant."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class BundleChanged(BaseModel):
    """What is served now."""

    model_config = ConfigDict(frozen=True)

    current: str = Field(description="The name of its directory.")
    previous: str | None = Field(description="What a rollback goes back to.")
    bundle: BundleName
    load_s: float = Field(description="Seconds until it answered.")


class ShelvedBundle(BaseModel):
    """A directory that may be asked for, or why not."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Of the directory; what a reload takes.")
    bundle: BundleName | None = Field(description="What its manifest says it is. Only loading it tells if it is whole.")
    created_at: str | None
    reason: str | None = Field(description="Why it cannot be served.")


class Bundles(BaseModel):
    """Which bundle is served, and which could be."""

    model_config = ConfigDict(frozen=True)

    current: str
    previous: str | None
    bundles: list[ShelvedBundle]
    complete: bool = Field(description="Whether there are no more than a listing holds.")
