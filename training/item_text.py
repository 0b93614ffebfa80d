"""Items in words, as the tokenizer of a model reads them.

Knows titles and tokens, not tasks. Shapes: I items of the catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import models
from transformers import PreTrainedTokenizerBase

from genrec.errors import DataError, RecipeError
from genrec.item_tokens import ItemTokens
from training.ragged import Ragged


@dataclass(frozen=True, eq=False)
class ItemText:
    """What is known of items in words, and how the model reads words.

    Attributes:
        tokenizer: of the model, item tokens included.
        items: the table of the stage `prepare`.
        item_tokens: which no title may hold.
    """

    tokenizer: PreTrainedTokenizerBase
    items: Path
    item_tokens: ItemTokens

    @property
    def end_id(self) -> int | None:
        """The token that ends a text."""
        end: int | None = self.tokenizer.eos_token_id
        return end

    def titles(self, column: str) -> list[str]:
        """Of each item row; an empty one where it has none.

        Raises:
            DataError: the items have no such column, or it holds no text.
        """
        schema = pq.read_schema(self.items)
        texts = [name for name in schema.names if name != "item_id" and pa.types.is_string(schema.field(name).type)]
        if column not in texts:
            there = f"columns of text are {', '.join(texts)}" if texts else "they have no column of text"
            raise DataError(
                f"tasks reads titles from the column {column!r} of the items, which is none of text; {there}. Name it "
                "in tasks.title_column, or leave the tasks out."
            )
        values = pq.read_table(self.items, columns=[column])[column].to_pylist()
        return [(value or "").strip() for value in values]

    def tokens(self, texts: Sequence[str], most: int | None = None) -> Ragged:
        """Token ids of each text, without special tokens around it.

        Args:
            texts: what is read.
            most: so many tokens of each at most.

        Raises:
            RecipeError: the tokenizer has no words at all.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend and isinstance(backend.model, models.WordLevel) and self.tokenizer.unk_token_id is None:
            raise _unreadable()  # asked for a word that it does not know, it raises a bare Exception
        cut = {} if most is None else {"truncation": True, "max_length": most}
        found = self.tokenizer(list(texts), add_special_tokens=False, **cut)
        return Ragged.of(found["input_ids"])

    def title_tokens(self, titles: Sequence[str], lead: str, most: int) -> Ragged:
        """Token ids of each title, none for an empty one; what reads as an item or a special token in it is left out.

        That holds for the unknown token: a title of unknown letters alone is none.

        Raises:
            RecipeError: not one title has a token that the tokenizer knows.
        """
        tokens = self.tokens([lead + title if title else "" for title in titles], most)
        of_items = [token for level in self.item_tokens.token_ids for token in level]
        reserved = [*of_items, *self.tokenizer.all_special_ids]
        tokens = tokens.only(~np.isin(tokens.values, reserved))
        blank = [token for token in np.unique(tokens.values).tolist() if not self.tokenizer.decode([token]).strip()]
        has_words = tokens.only(~np.isin(tokens.values, blank)).sizes > 0
        tokens = tokens.only(np.repeat(has_words, tokens.sizes))
        if not len(tokens.values):
            raise _unreadable() if any(titles) else DataError("not one item has a title; leave the tasks out.")
        return tokens


def _unreadable() -> RecipeError:
    """What is said where titles are no words to a model."""
    return RecipeError(
        "tasks gives titles to a model whose tokenizer knows no words of them: it has item tokens alone, or the bundle "
        "it comes from was pruned of its text; take a model.checkpoint that reads text, or leave the tasks out."
    )
