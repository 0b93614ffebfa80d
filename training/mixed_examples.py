"""Examples of several tasks in one epoch, so many of each as its weight says.

Which of them an epoch has follows from seed and epoch alone, for the reason that `WindowExamples` gives. Knows no task.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from training.batches import Batch, Ints
from training.examples import Batched, Examples


@dataclass(frozen=True, eq=False)
class Part:
    """One task of an epoch.

    Attributes:
        task: its name.
        examples: all that there are.
        count: how many of them an epoch has.
        stream: tells its draws from those of other tasks, whichever others there are.
        left_out: what there could be no example of, for the display.
    """

    task: str
    examples: Examples
    count: int
    stream: int
    left_out: int = 0

    def __str__(self) -> str:
        without = f"; {self.left_out:,} more without a title" if self.left_out else ""
        return f"{self.count:,} {self.task} (of {len(self.examples):,}{without})"

    def drawn(self, seed: int, epoch: int) -> Ints:
        """``(count,)`` examples of an epoch: each equally often, but for a rest that is drawn anew."""
        rounds, rest = divmod(self.count, len(self.examples))
        rng = np.random.default_rng((seed, epoch, self.stream))
        every = np.arange(len(self.examples))
        return np.concatenate([np.tile(every, rounds), rng.permutation(every)[:rest]])


@dataclass(eq=False)
class MixedExamples(Batched):
    """The examples of an epoch, those of one task after those of another; whoever trains shuffles them.

    Attributes:
        parts: the tasks.
        seed: of the draws.
    """

    parts: tuple[Part, ...]
    seed: int
    epoch: int = field(default=0, init=False)
    _part: Ints = field(init=False, repr=False)  # (N,) place among the parts of each example
    _index: Ints = field(init=False, repr=False)  # (N,) which of the part's examples it is, in this epoch

    def __post_init__(self) -> None:
        self._part = np.repeat(np.arange(len(self.parts)), [part.count for part in self.parts])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw those of this epoch."""
        self.epoch = epoch
        for part in self.parts:
            part.examples.set_epoch(epoch)
        self._index = np.concatenate([part.drawn(self.seed, epoch) for part in self.parts])

    def __len__(self) -> int:
        return len(self._part)

    def batch(self, indices: Ints) -> Batch:
        """Several examples at once, of whichever tasks."""
        chosen = [np.flatnonzero(self._part[indices] == number) for number in range(len(self.parts))]
        batches = [
            part.examples.batch(self._index[indices[places]])
            for part, places in zip(self.parts, chosen, strict=True)
            if len(places)
        ]
        return Batch.stacked(batches).in_order(np.argsort(np.concatenate(chosen)))

    def lengths(self) -> Ints:
        """``(N,)`` tokens of each input in this epoch."""
        lengths: Ints = np.empty(len(self), dtype=np.int64)
        for part, places in zip(self.parts, self.places(), strict=True):
            lengths[places] = part.examples.lengths()[self._index[places]]
        return lengths

    def places(self) -> Iterator[Ints]:
        """Of each part, which examples are of it."""
        for number in range(len(self.parts)):
            yield np.flatnonzero(self._part == number)


def tasks_of(examples: Examples) -> tuple[Part, ...]:
    """The tasks of what is trained on; none where it is the next item alone."""
    return examples.parts if isinstance(examples, MixedExamples) else ()
