"""The history encoder: the only place that turns items into input ids.

Serving encodes a user's history with it, training makes its examples with it, so what the model sees online is what it
saw offline. Prompts are put together from token-id pieces, never by tokenizing text across a border, which can merge
tokens (TRL issue 5213). Knows rows of the catalog, not item ids, and no tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError

IGNORE = -100
"""Label of a position without a loss, as PyTorch's cross entropy reads it."""


@dataclass(frozen=True)
class Prompt:
    """How a history becomes input ids: prefix + items joined by the separator + suffix.

    Attributes:
        prefix_ids, item_separator_ids, suffix_ids: token ids.
        max_history_items: the newest that many items are kept.
        order: items are read oldest first.
    """

    prefix_ids: tuple[int, ...] = ()
    item_separator_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    max_history_items: int = 20
    order: Literal["oldest_first"] = "oldest_first"

    def __post_init__(self) -> None:
        if self.max_history_items < 1:
            raise DataError(
                f"max_history_items is {self.max_history_items}; a prompt needs room for at least one item."
            )
        if self.order != "oldest_first":
            raise DataError(f"prompt order {self.order!r} is unknown; this version reads histories oldest_first.")

    @property
    def every_item_ends_a_prompt(self) -> bool:
        """Whether each item of a prompt is followed by exactly what would end the prompt there.

        Then one window trains a causal model on all its items at once: the ids before each item are the very prompt
        that asks for it.
        """
        return self.item_separator_ids == self.suffix_ids


@dataclass(frozen=True, eq=False)
class HistoryEncoder:
    """Rows of the catalog -> token ids.

    Attributes:
        prompt: the pieces around and between items.
        paths: ``(N, L)`` int32, the token path of each row.
    """

    prompt: Prompt
    paths: npt.NDArray[np.int32]

    @property
    def max_prompt_tokens(self) -> int:
        """The length of the longest prompt."""
        prompt, levels = self.prompt, int(self.paths.shape[1])
        between = (prompt.max_history_items - 1) * len(prompt.item_separator_ids)
        return len(prompt.prefix_ids) + prompt.max_history_items * levels + between + len(prompt.suffix_ids)

    def encode(self, rows: Sequence[int]) -> list[int]:
        """Input ids of a history, oldest first; the newest `max_history_items` are kept."""
        ids = list(self.prompt.prefix_ids)
        for place, row in enumerate(rows[-self.prompt.max_history_items :]):
            if place:
                ids += self.prompt.item_separator_ids
            ids += self.paths[row].tolist()
        return ids + list(self.prompt.suffix_ids)

    def target(self, row: int) -> list[int]:
        """The L token ids that name the item to be generated."""
        path: list[int] = self.paths[row].tolist()
        return path

    def continuation(self, rows: Sequence[int], target: int) -> tuple[list[int], list[int]]:
        """Input ids and labels for a causal model: the prompt, then the target; a loss on the target alone."""
        prompt, answer = self.encode(rows), self.target(target)
        return prompt + answer, [IGNORE] * len(prompt) + answer

    def window(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Input ids and labels for a causal model: consecutive items with a loss on each that a prompt could ask for.

        That is every item, or every one but the first where the prompt has a suffix.

        Args:
            rows: at most ``max_history_items + 1`` items, so that the last one is asked for with a full history.

        Raises:
            DataError: the prompt ends otherwise than its separators, so that the ids before an item are not the prompt
                that asks for it, or the window is too long.
        """
        if not self.prompt.every_item_ends_a_prompt:
            raise DataError(
                "a loss on every item of a window needs a prompt whose suffix equals its item separator; "
                'train with examples = "last" instead, or give both the same tokens.'
            )
        if len(rows) > self.prompt.max_history_items + 1:
            raise DataError(
                f"a window of {len(rows)} items is longer than a history of {self.prompt.max_history_items} + 1."
            )
        ids = list(self.prompt.prefix_ids)
        labels = [IGNORE] * len(ids)
        for place, row in enumerate(rows):
            between = list(self.prompt.item_separator_ids) if place else []
            target = self.target(row)
            ids += between + target
            # The prompt of an empty history ends in the suffix, which the first item of a window does not follow.
            asked = place > 0 or not self.prompt.suffix_ids
            labels += [IGNORE] * len(between) + (target if asked else [IGNORE] * len(target))
        return ids, labels
