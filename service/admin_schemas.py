"""The wire types of the admin listener."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import ItemId

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
