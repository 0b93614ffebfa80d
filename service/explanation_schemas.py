"""The wire types of an explained answer: how its search went."""

from pydantic import BaseModel, ConfigDict, Field


class _Answered(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Prefix(_Answered):
    """The beginning of semantic IDs."""

    semantic_id: list[int]
    log_prob: float = Field(
        description="Under the model, summed down to here. Divided by L ** length_penalty: a score."
    )
    items: int = Field(description="Items that may be answered and begin so.")


class Mass(_Answered):
    """Where the probability of the beams went at a level: 1 in all."""

    allowed: float = Field(description="To codes that lead to an item that may be answered.")
    closed_by_filter: float = Field(description="To codes whose items are all filtered out, excluded or off.")
    closed_by_trie: float = Field(description="To tokens that lead to no item.")


class Level(_Answered):
    """One level of the search, each list with the likeliest first."""

    level: int = Field(description="From 0.")
    kept: list[Prefix] = Field(description="The beams after this level, all of them.")
    pruned: list[Prefix] = Field(description="Prefixes that were compared and lost, the first 20.")
    pruned_total: int
    closed: list[Prefix] = Field(description="Prefixes of the catalog that lead to nothing that may be answered, 20.")
    closed_total: int
    mass: Mass


class Explanation(_Answered):
    """A search from the root to the items."""

    levels: list[Level]
