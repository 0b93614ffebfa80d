"""The data sections of a recipe: prepare, embed.

Frozen types with their defaults and the rules that one section can check by itself. Knows neither files nor TOML.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

RESERVED_COLUMNS = re.compile(r"item_id|popularity|code_\d+")
"""Names that the catalog of a bundle uses itself."""


class Section(BaseModel):
    """Base of every section: frozen, no unknown key, no silent conversion ("5" is not 5)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# TOML arrays arrive as lists; strict mode would refuse them for a tuple. Items stay strict.
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Path = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(gt=0)]
Dimensions = Annotated[int, Field(ge=1, le=4096)]


class InteractionsSource(Section):
    """Where interactions are and what their columns are called.

    Attributes:
        path: A CSV, TSV, JSONL or Parquet file, a glob, or a directory (``key=value`` folders become columns).
        user: Column of the user id.
        item: Column of the item id.
        time: Column of the time.
        time_unit: Unit of numeric times; `auto` tells seconds from milliseconds by size and reads text as ISO 8601.
        rating: Column of the rating, if any.
        event: Column of the event type, if any.
        separator: Between the fields of a CSV file.
    """

    path: Path
    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    time_unit: Literal["auto", "seconds", "milliseconds", "iso"] = "auto"
    rating: str | None = None
    event: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","


class MetadataColumn(Section):
    """One metadata column of the catalog.

    Attributes:
        type: What it becomes; text that cannot be read so is refused with its row.
        column: Its name in the items file; the key's own name if not given.
        separator: Between the elements of a list written as text, such as ``|`` in ``Crime|Drama``.
    """

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    column: str | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _separator_belongs_to_lists(self) -> Self:
        if self.separator is not None and self.type != "list":
            raise ValueError('separator is for type = "list" only; remove it or change the type')
        return self


def _short_form(value: Any) -> Any:  # noqa: ANN401  (whatever TOML holds)
    return {"type": value} if isinstance(value, str) else value


Metadata = dict[str, Annotated[MetadataColumn, BeforeValidator(_short_form)]]


class ItemsSource(Section):
    """Where the items are.

    Attributes:
        path: As for interactions.
        item: Column of the item id.
        metadata: Catalog column → its type, or a table of type, column, separator. Not given: every column of the
            file, CSV columns as strings.
        separator: Between the fields of a CSV file.
    """

    path: Path
    item: str = "item_id"
    metadata: Metadata | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","

    @field_validator("metadata")
    @classmethod
    def _names_are_free(cls, metadata: Metadata | None) -> Metadata | None:
        for name in metadata or {}:
            if RESERVED_COLUMNS.fullmatch(name):
                raise ValueError(f"a metadata column may not be called {name!r}: the catalog uses that name itself")
        return metadata


class Prepare(Section):
    """From raw data to histories with a split.

    Attributes:
        dataset: A named data set, instead of `interactions` and `items`.
        interactions: The user's own interactions.
        items: The user's own items; without them an item is an id and has no metadata.
        minimum_rating: Interactions rated lower are dropped.
        user_core: Users with fewer interactions are dropped, in turn with `item_core` until both hold.
        item_core: Items with fewer interactions are dropped, likewise.
        duplicates: Of several interactions of one user with one item, which stay.
        missing_items: What to do with interactions of items that the items file lacks.
        keep_unseen_items: Keep items without any interaction. A model cannot learn them, so the default is no.
        split: `leave_one_out`: a user's last item is test, the one before validation. `time`: the newest shares of
            all interactions. `none`: nothing is held out and nothing can be measured, as `--refit` wants it.
        train_on_validation: Validation interactions are for training too, and only test is held out: for one last look
            at test when everything was chosen on a run without it. The fittings then need `stop_at_epoch`.
        validation_share: Share of interactions for validation, split `time` only.
        test_share: Share of interactions for test, split `time` only.
    """

    dataset: Literal["ml-100k", "toy"] | None = None
    interactions: InteractionsSource | None = None
    items: ItemsSource | None = None
    minimum_rating: float | None = None
    user_core: Annotated[int, Field(ge=1)] = 1
    item_core: Annotated[int, Field(ge=1)] = 1
    duplicates: Literal["keep", "first", "last"] = "keep"
    missing_items: Literal["error", "drop"] = "error"
    keep_unseen_items: bool = False
    split: Literal["leave_one_out", "time", "none"] = "leave_one_out"
    train_on_validation: bool = False
    validation_share: Share = 0.1
    test_share: Share = 0.1

    @property
    def held_out_for_validation(self) -> bool:
        """Whether anything is."""
        return self.split != "none" and not self.train_on_validation

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.dataset is None and self.interactions is None:
            raise ValueError("no data: give dataset, or a table [prepare.interactions] with a path")
        if self.dataset is not None and (self.interactions is not None or self.items is not None):
            raise ValueError("dataset excludes [prepare.interactions] and [prepare.items]; keep one of them")
        if self.minimum_rating is not None and self.interactions is not None and self.interactions.rating is None:
            raise ValueError("minimum_rating needs interactions.rating, the name of the rating column")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on; their sum must be below 1")
        return self


class TfidfPart(Section):
    """TF-IDF of the text columns, reduced by a truncated SVD.

    Attributes:
        columns: Metadata columns to read; not given, all text and list columns.
        dimensions: Of the reduced vectors, at most.
        max_words: Size of the word list, the most frequent words.
        weight: How far this part spreads within the whole vector, beside the others.
    """

    columns: Strings | None = None
    dimensions: Dimensions = 64
    max_words: Annotated[int, Field(ge=1)] = 20_000
    weight: Weight = 1.0


class EncoderPart(Section):
    """A pretrained text encoder.

    Attributes:
        model: A directory or hub id.
        library: `transformers`: any AutoModel, mean-pooled. `sentence-transformers`: with the model's own pooling.
        columns: Metadata columns to read; not given, all text and list columns.
        batch_size: Items a forward pass.
        max_tokens: Longer texts are cut.
        weight: How far this part spreads within the whole vector, beside the others.
    """

    model: Path
    library: Literal["transformers", "sentence-transformers"] = "transformers"
    columns: Strings | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    max_tokens: Annotated[int, Field(ge=1)] = 256
    weight: Weight = 1.0


class GivenPart(Section):
    """Vectors made elsewhere.

    Attributes:
        path: Parquet with an id and a list column; or ``.npy``/``.safetensors`` with `ids`.
        ids: Text file with one item id a line, in the order of the rows.
        item: Id column of the Parquet file.
        vector: List column of the Parquet file, or tensor of the safetensors file.
        weight: How far this part spreads within the whole vector, beside the others.
    """

    path: Path
    ids: Path | None = None
    item: str = "item_id"
    vector: str = "vector"
    weight: Weight = 1.0


class CollaborativePart(Section):
    """Which items stand near each other in training sequences: PPMI of windowed co-occurrence, reduced by an SVD.

    Attributes:
        window: Farthest distance of two items that count as together; a pair at distance d counts 1/d.
        dimensions: Of the reduced vectors, at most.
        weight: How far this part spreads within the whole vector, beside the others.
    """

    window: Annotated[int, Field(ge=1, le=100)] = 5
    dimensions: Dimensions = 64
    weight: Weight = 1.0


PartName = Literal["tfidf", "encoder", "given", "collaborative"]
PART_NAMES: tuple[PartName, ...] = ("tfidf", "encoder", "given", "collaborative")


class Embed(Section):
    """From items to vectors: the listed parts side by side, each centred and spread by its weight.

    Attributes:
        parts: Which parts, in this order; none at all for codes that need no vectors.
    """

    parts: Annotated[tuple[PartName, ...], Field(strict=False)] = ("tfidf",)
    tfidf: TfidfPart | None = None
    encoder: EncoderPart | None = None
    given: GivenPart | None = None
    collaborative: CollaborativePart | None = None

    @model_validator(mode="before")
    @classmethod
    def _listed_parts_get_tables(cls, table: Any) -> Any:  # noqa: ANN401  (whatever TOML holds)
        """A listed part without a table has its defaults: an empty table."""
        if not isinstance(table, dict) or not isinstance(table.get("parts", ()), list | tuple):
            return table
        listed = [part for part in table.get("parts", ("tfidf",)) if part in PART_NAMES]
        return {**{part: {} for part in listed}, **table}

    @model_validator(mode="after")
    def _tables_match_parts(self) -> Self:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one part twice")
        for part in PART_NAMES:
            if getattr(self, part) is not None and part not in self.parts:
                raise ValueError(f'[embed.{part}] is set but parts does not list "{part}"; add it or remove the table')
        return self
