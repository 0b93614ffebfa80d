"""The wire types of the tree of semantic IDs."""

from pydantic import BaseModel, ConfigDict, Field


class _Answered(BaseModel):
    model_config = ConfigDict(frozen=True)


class Example(_Answered):
    """An item, as people know it."""

    item_id: str
    title: str | None = Field(description="Of the column that names items; null in a catalog without text.")


class Branch(_Answered):
    """A prefix one code longer."""

    semantic_id: list[int]
    items: int = Field(description="How many items begin so.")
    popularity: int = Field(description="How often they occur in the training interactions, together.")
    examples: list[Example] = Field(description="The most popular of them, at most 3.")


class Tree(_Answered):
    """What lies below a prefix, the most popular child first."""

    prefix: list[int]
    items: int = Field(description="How many items begin so.")
    total: int = Field(description="How many children there are.")
    children: list[Branch]
