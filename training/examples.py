"""Training examples: torch data sets that give `input_ids` and `labels`, and the collator that pads them.

Every id comes from `genrec.history.HistoryEncoder`, the encoder that serves. Knows no Trainer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from genrec.decoding.padding import pad_prompts
from genrec.history import IGNORE, HistoryEncoder
from genrec.models import Architecture

Example = Mapping[str, list[int]]
Sequence32 = npt.NDArray[np.int32]


class Examples(Protocol):
    """A sized data set of examples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def set_epoch(self, epoch: int) -> None:
        """Draw what is random in the examples of this epoch."""
        ...


@dataclass(frozen=True, eq=False)
class LastItemExamples(Dataset[Example]):
    """A history and the item that followed: one example for each position to be predicted.

    Attributes:
        encoder: items -> ids.
        architecture: seq2seq gets the target as labels; causal gets it after the prompt.
        sequences: item rows of each user, oldest first.
        first_target: the earliest position of each sequence that is a target, at least 1.
    """

    encoder: HistoryEncoder
    architecture: Architecture
    sequences: Sequence[Sequence32]
    first_target: Sequence[int]

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        return [
            (user, position)
            for user, (sequence, first) in enumerate(zip(self.sequences, self.first_target, strict=True))
            for position in range(max(first, 1), len(sequence))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        user, position = self._places[index]
        sequence = self.sequences[user]
        history = sequence[max(0, position - self.encoder.prompt.max_history_items) : position].tolist()
        target = int(sequence[position])
        if self.architecture == "seq2seq":
            return {"input_ids": self.encoder.encode(history), "labels": self.encoder.target(target)}
        input_ids, labels = self.encoder.continuation(history, target)
        return {"input_ids": input_ids, "labels": labels}

    def set_epoch(self, epoch: int) -> None:
        """Nothing is random here."""


@dataclass(eq=False)
class WindowExamples(Dataset[Example]):
    """Consecutive items with a loss on each of them, for causal models: one forward pass learns from all at once.

    A sequence gives as many windows an epoch as it takes to cover it, each from a random place. Places follow from seed
    and epoch alone: torch's global generator is not where it was when a run goes on in the middle of an epoch.

    Items of one time have no order. Given `times`, they are put in another one every epoch, so that none is learnt.

    Attributes:
        encoder: items -> ids; a window is as long as its longest history plus the target.
        sequences: item rows of each user, oldest first, at least 2 each.
        seed: of the places.
        times: of each item of each sequence, never descending; None keeps the order as it is.
    """

    encoder: HistoryEncoder
    sequences: Sequence[Sequence32]
    seed: int
    times: Sequence[npt.NDArray[np.int64]] | None = None
    _places: npt.NDArray[np.float64] = field(init=False, repr=False)
    _ordered: Sequence[Sequence32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw where the windows of this epoch begin, as shares of what is possible, and the order within ties."""
        rng = np.random.default_rng((self.seed, epoch))
        self._places = rng.random(len(self))
        self._ordered = self.sequences
        if self.times is not None:
            self._ordered = [
                sequence[np.lexsort((rng.random(len(sequence)), times))]
                for sequence, times in zip(self.sequences, self.times, strict=True)
            ]

    @property
    def window_items(self) -> int:
        """Items in a window."""
        return self.encoder.prompt.max_history_items + 1

    @cached_property
    def _users(self) -> list[int]:
        size = self.window_items
        return [user for user, sequence in enumerate(self.sequences) for _ in range(-(-len(sequence) // size))]

    def __len__(self) -> int:
        return len(self._users)

    def __getitem__(self, index: int) -> Example:
        sequence = self._ordered[self._users[index]]
        spare = len(sequence) - self.window_items
        # Few places reach the ends of a sequence, so half a window is added on either side. Beyond the oldest item the
        # window is shorter, and keeps two items, for the first may be without a loss. Beyond the newest it is the
        # newest whole window: what follows a long history is what will be asked.
        beyond = min(self.window_items // 2, self.window_items - 2) if spare > 0 else 0
        start = min(int(self._places[index] * (max(spare, 0) + 2 * beyond + 1)) - beyond, max(spare, 0))
        rows = sequence[max(start, 0) : start + self.window_items].tolist()
        input_ids, labels = self.encoder.window(rows)
        return {"input_ids": input_ids, "labels": labels}


@dataclass(eq=False)
class MaskedExamples(Dataset[Example]):
    """Examples in which some items of the input are hidden behind one token; labels stay as they are.

    A model that cannot count on any single item of the history is slower to learn histories by heart. Whole items are
    hidden, by seed, epoch and example alone, for the reason that `WindowExamples` gives.

    Attributes:
        examples: what is hidden from.
        item_token_ids: ids that belong to items, ascending.
        num_levels: L, how many ids in a row are one item.
        share: of the items, in [0, 1).
        mask_id: the token that stands in for each of theirs.
        seed: of the draw.
    """

    examples: Examples
    item_token_ids: npt.NDArray[np.int64]
    num_levels: int
    share: float
    mask_id: int
    seed: int
    _epoch: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        example = self.examples[index]
        ids = np.array(example["input_ids"])
        places = np.flatnonzero(np.isin(ids, self.item_token_ids)).reshape(-1, self.num_levels)  # (items, L)
        rng = np.random.default_rng((self.seed, self._epoch, index))
        ids[places[rng.random(len(places)) < self.share]] = self.mask_id
        return {"input_ids": ids.tolist(), "labels": example["labels"]}

    def set_epoch(self, epoch: int) -> None:
        """Hide others in this epoch."""
        self._epoch = epoch
        self.examples.set_epoch(epoch)


@dataclass(frozen=True)
class Collator:
    """Pads on the right: labels with IGNORE, inputs under an attention mask."""

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """One batch: `input_ids`, `attention_mask` and `labels`, int64."""
        inputs = pad_prompts([example["input_ids"] for example in examples], left=False)
        labels = pad_prompts([example["labels"] for example in examples], left=False)
        return {
            "input_ids": inputs.ids,
            "attention_mask": inputs.mask,
            "labels": labels.ids.masked_fill(labels.mask == 0, IGNORE),
        }
