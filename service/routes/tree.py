"""The tree of semantic IDs over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query

from genrec.semantic_id import Catalog
from service.browser import title_column
from service.errors import UnknownItem
from service.state import StateOf
from service.tree_schemas import Branch, Example, Tree

router = APIRouter(prefix="/v1/tree", tags=["items"])

Prefix = Annotated[
    str,
    Query(
        pattern=r"^([0-9]{1,9}(,[0-9]{1,9})*)?$",
        max_length=256,
        description="Codes from the root, as 17,201; none: all.",
    ),
]
Limit = Annotated[int, Query(ge=1, le=1_000, description="At most so many children.")]


# A plain function: the framework runs it in its thread pool, off the event loop.


@router.get("", summary="What lies below a prefix of semantic IDs")
def tree(state: StateOf, prefix: Prefix = "", limit: Limit = 100) -> Tree:
    """The children of a prefix, the most popular first, each with its most popular items."""
    browser = state.browser
    found = browser.tree.below(tuple(map(int, prefix.split(","))) if prefix else (), limit)
    if found is None:
        raise UnknownItem("The catalog has no item whose semantic ID begins so.")
    title = title_column(browser.catalog)
    return Tree(
        prefix=list(found.prefix),
        items=found.items,
        total=found.total,
        children=[
            Branch(
                semantic_id=list(branch.semantic_id),
                items=branch.items,
                popularity=branch.popularity,
                examples=[_example(browser.catalog, row, title) for row in branch.examples],
            )
            for branch in found.branches
        ],
    )


def _example(catalog: Catalog, row: int, title: str | None) -> Example:
    named = catalog.describe(row, [title])[title] if title else None
    return Example(item_id=catalog.item_id(row), title=named)
