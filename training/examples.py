"""Training examples: torch data sets that give whole batches of input ids and labels.

A batch is a few lookups in arrays that were made before: no loop over users, items or tokens. What an example is
follows from `genrec.history.HistoryEncoder`, the encoder that serves. Knows no Trainer.

Shapes: n items of all sequences, N examples, B of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from genrec.history import HistoryEncoder
from genrec.models import Architecture
from training.batches import Batch, BatchEncoder, Collator, Example, Ints, Rows
from training.ragged import Ragged, ranges

__all__ = [
    "Batch",
    "Batched",
    "Collator",
    "Example",
    "Examples",
    "LastItemExamples",
    "MaskedExamples",
    "WindowExamples",
]

Sequence32 = npt.NDArray[np.int32]


class Examples(Protocol):
    """A sized data set of examples."""

    @property
    def epoch(self) -> int:
        """Whose draw it is."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def batch(self, indices: Ints) -> Batch:
        """Several examples at once."""
        ...

    def lengths(self) -> Ints:
        """``(N,)`` tokens of each input in this epoch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Draw what is random in the examples of this epoch."""
        ...


class Batched(Dataset[Example], ABC):
    """How torch asks: a data loader fetches a whole batch by `__getitems__`."""

    @abstractmethod
    def batch(self, indices: Ints) -> Batch:
        """Several examples at once."""

    def __getitem__(self, index: int) -> Example:
        """One example, for who wants to look at it."""
        return self.batch(np.array([index])).example(0)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch, for a data loader."""
        return self.batch(np.asarray(indices, dtype=np.int64))


@dataclass(eq=False)
class LastItemExamples(Batched):
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
    epoch: int = field(default=0, init=False)
    _items: Rows = field(init=False, repr=False)  # (n,) all sequences, one after the other
    _targets: Ints = field(init=False, repr=False)  # (N,) place of each target among them
    _begins: Ints = field(init=False, repr=False)  # (N,) place of the oldest item that its prompt holds

    def __post_init__(self) -> None:
        flat = Ragged.of(self.sequences)
        self._items, starts, sizes = flat.values, flat.starts, flat.sizes
        first = np.maximum(np.asarray(self.first_target, dtype=np.int64), 1)
        if len(first) != len(sizes):
            raise ValueError(f"{len(sizes)} sequences, but first targets of {len(first)}")
        counts = np.maximum(sizes - first, 0)
        self._targets = np.repeat(starts + first, counts) + ranges(counts)
        oldest = self._targets - self.encoder.prompt.max_history_items
        self._begins = np.maximum(np.repeat(starts, counts), oldest)

    def __len__(self) -> int:
        return len(self._targets)

    def batch(self, indices: Ints) -> Batch:
        """Several examples at once."""
        targets, begins = self._targets[indices], self._begins[indices]
        rows, counts = _slices(self._items, begins, targets - begins)
        if self.architecture == "causal":
            return self._encode.continuation(rows, counts, self._items[targets])
        ids, lengths = self._encode.encode(rows, counts)
        labels = self._encode.targets(self._items[targets])
        return Batch(ids, lengths, labels, np.full(len(labels), labels.shape[1], dtype=np.int64))

    def lengths(self) -> Ints:
        """``(N,)`` tokens of each input."""
        answer = self.encoder.paths.shape[1] if self.architecture == "causal" else 0
        return self._encode.prompt_lengths(self._targets - self._begins) + answer

    def set_epoch(self, epoch: int) -> None:
        """Nothing is random here."""
        self.epoch = epoch

    @cached_property
    def _encode(self) -> BatchEncoder:
        return BatchEncoder(self.encoder)


@dataclass(eq=False)
class WindowExamples(Batched):
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
    epoch: int = field(default=0, init=False)
    _flat_items: Rows = field(init=False, repr=False)  # (n,) as given
    _items: Rows = field(init=False, repr=False)  # (n,) in the order of this epoch
    _owner: Ints = field(init=False, repr=False)  # (n,) sequence of each
    _sequence: Ints = field(init=False, repr=False)  # (N,) sequence of each window
    _begins: Ints = field(init=False, repr=False)  # (N,) place of the first item of each window, in this epoch
    _counts: Ints = field(init=False, repr=False)  # (N,) items of each window, in this epoch

    def __post_init__(self) -> None:
        self.encoder.window([])  # refuses a prompt that has no windows
        flat = Ragged.of(self.sequences)
        self._flat_items, self._starts, self._sizes = flat.values, flat.starts, flat.sizes
        self._owner = np.repeat(np.arange(len(self._sizes)), self._sizes)
        self._flat_times = None if self.times is None else np.concatenate([*self.times, np.empty(0, dtype=np.int64)])
        self._sequence = np.repeat(np.arange(len(self._sizes)), -(-self._sizes // self.window_items))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw where the windows of this epoch begin, as shares of what is possible, and the order within ties."""
        self.epoch = epoch
        rng = np.random.default_rng((self.seed, epoch))
        shares = rng.random(len(self))
        spare = self._sizes[self._sequence] - self.window_items
        # Few places reach the ends of a sequence, so half a window is added on either side. Beyond the oldest item the
        # window is shorter, and keeps two items, for the first may be without a loss. Beyond the newest it is the
        # newest whole window: what follows a long history is what will be asked.
        beyond = np.where(spare > 0, min(self.window_items // 2, self.window_items - 2), 0)
        spare = np.maximum(spare, 0)
        start = np.minimum((shares * (spare + 2 * beyond + 1)).astype(np.int64) - beyond, spare)
        first, last = np.maximum(start, 0), np.minimum(start + self.window_items, self._sizes[self._sequence])
        self._begins, self._counts = self._starts[self._sequence] + first, last - first
        self._items = self._flat_items
        if self._flat_times is not None:
            self._items = self._flat_items[
                np.lexsort((rng.random(len(self._flat_items)), self._flat_times, self._owner))
            ]

    @property
    def window_items(self) -> int:
        """Items in a window."""
        return self.encoder.prompt.max_history_items + 1

    def __len__(self) -> int:
        return len(self._sequence)

    def batch(self, indices: Ints) -> Batch:
        """Several windows at once."""
        rows, counts = _slices(self._items, self._begins[indices], self._counts[indices])
        return self._encode.window(rows, counts)

    def lengths(self) -> Ints:
        """``(N,)`` tokens of each window."""
        return self._encode.window_lengths(self._counts)

    @cached_property
    def _encode(self) -> BatchEncoder:
        return BatchEncoder(self.encoder)


@dataclass(eq=False)
class MaskedExamples(Batched):
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
    item_token_ids: Ints
    num_levels: int
    share: float
    mask_id: int
    seed: int

    @property
    def epoch(self) -> int:
        """Whose draw it is."""
        return self.examples.epoch

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: Ints) -> Batch:
        """Several examples at once."""
        plain = self.examples.batch(indices)
        of_item = np.isin(plain.input_ids, self.item_token_ids) & (
            np.arange(plain.input_ids.shape[1]) < plain.lengths[:, None]
        )
        which = np.maximum(np.cumsum(of_item, axis=1) - 1, 0) // self.num_levels  # (B, T) number of the item
        hidden = of_item & (shares(self.seed, self.epoch, indices[:, None], which) < self.share)
        return Batch(np.where(hidden, self.mask_id, plain.input_ids), plain.lengths, plain.labels, plain.label_lengths)

    def lengths(self) -> Ints:
        """``(N,)`` tokens of each input."""
        return self.examples.lengths()

    def set_epoch(self, epoch: int) -> None:
        """Hide others in this epoch."""
        self.examples.set_epoch(epoch)


def shares(seed: int, epoch: int, example: Ints, item: Ints) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each item of each example of an epoch, the same whenever and beside whomever it is asked.

    A generator for each example would cost more than the rest of the batch; this is SplitMix64's finalizer over the
    four numbers, one after the other.
    """
    state: npt.NDArray[np.uint64] = np.array([seed], dtype=np.uint64)
    for part in (np.uint64(epoch), example.astype(np.uint64), item.astype(np.uint64)):
        state = _mixed(_mixed(state) + part)
    return (_mixed(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The next output of a SplitMix64 generator whose state is `value`."""
    mixed = value + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _slices(items: Rows, begins: Ints, counts: Ints) -> tuple[Rows, Ints]:
    """``(B, C)`` items from each begin on, and how many of each row count; beyond them stands any item."""
    places = begins[:, None] + np.arange(int(counts.max()))
    return items[np.minimum(places, len(items) - 1)], counts
