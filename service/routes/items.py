"""The catalog over HTTP: items, search, neighbours. Ids may hold slashes, so they take the rest of a path."""

from typing import Annotated

from fastapi import APIRouter, Query

from genrec.recommender import Recommender
from service.errors import UnknownItem
from service.schemas import Item, ItemList, SimilarItem, SimilarItems
from service.state import StateOf
from service.translation import to_item

router = APIRouter(prefix="/v1/items", tags=["items"])

Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]


# Plain functions: the framework runs them in its thread pool, off the event loop.


@router.get("", summary="Search items by title")
def search(
    state: StateOf,
    q: Annotated[str, Query(max_length=256, description="Words of the title, or an item id; all items without.")] = "",
    limit: Limit = 20,
) -> ItemList:
    """Items with a word in the title for each word of `q` that begins so, the most popular first."""
    recommender = state.inference.recommender
    matches = state.browsers.of(recommender.bundle).search(q, limit)
    return ItemList(items=[to_item(recommender, row) for row in matches.rows], total=matches.total)


@router.get("/{item_id:path}/similar", summary="Neighbours by semantic ID")
def similar(item_id: str, state: StateOf, limit: Limit = 20) -> SimilarItems:
    """Items that share leading codes: those with most in common first, then by popularity."""
    recommender = state.inference.recommender
    neighbours = state.browsers.of(recommender.bundle).similar(_row(recommender, item_id), limit)
    return SimilarItems(
        items=[
            SimilarItem(**to_item(recommender, one.row).model_dump(), shared_levels=one.shared_levels)
            for one in neighbours
        ]
    )


@router.get("/{item_id:path}", summary="One item")
def item(item_id: str, state: StateOf) -> Item:
    """An item with its semantic ID, popularity and metadata."""
    recommender = state.inference.recommender
    return to_item(recommender, _row(recommender, item_id))


def _row(recommender: Recommender, item_id: str) -> int:
    row = recommender.bundle.catalog.row(item_id)
    if row is None:
        raise UnknownItem("The catalog has no item of this id.")
    return row
