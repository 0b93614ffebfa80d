"""Histories as later stages read them: item rows per user, with the points where validation and test begin.

Knows the files of the prepare stage. Knows nothing of tokens or models. Shapes: n interactions, U users, N items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec.errors import DataError, one_line
from training.interactions import IntArray
from training.split import SPLITS, TEST, VALIDATION, Split, check_no_leak

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationCase:
    """One question to a recommender: after this history, what came next?

    Attributes:
        user: Place of the user in `Sequences.user_ids`.
        history: (T,) int32 item rows, oldest first, T >= 1: everything of the user before the target.
        target: The item row that came next.
    """

    user: int
    history: IntArray
    target: int


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """All histories. An item is its row in ``items.parquet``.

    Attributes:
        item_ids: N ids, sorted.
        user_ids: U ids, sorted.
        items: (n,) int32 item rows, user after user, oldest first.
        times: (n,) int64 milliseconds, never descending within a user.
        starts: (U + 1,) int64; user u has ``items[starts[u]:starts[u + 1]]``.
        validation_starts: (U,) int64; what lies before it in the user's range is training.
        test_starts: (U,) int64; from here to the end of the user's range is test.
    """

    item_ids: Sequence[str]
    user_ids: Sequence[str]
    items: IntArray
    times: Offsets
    starts: Offsets
    validation_starts: Offsets
    test_starts: Offsets

    def training_sequences(self) -> list[IntArray]:
        """The training part of each user that has one: (T,) int32 views, users in order, nothing held out."""
        return [self.items[training] for training in self._training()]

    def training_times(self) -> list[Offsets]:
        """When each item of `training_sequences` was: (T,) int64 views, milliseconds."""
        return [self.times[training] for training in self._training()]

    def sequences_before_test(self) -> list[IntArray]:
        """The training and validation part of each user: what a model reads of a test user, (T,) int32 views."""
        ranges = zip(self.starts[:-1].tolist(), self.test_starts.tolist(), strict=True)
        return [self.items[start:end] for start, end in ranges if end > start]

    def validation_cases(self) -> list[EvaluationCase]:
        """A case for each validation interaction; its history is the user's training items before it."""
        return list(self._cases(self.validation_starts, self.test_starts))

    def test_cases(self) -> list[EvaluationCase]:
        """A case for each test interaction; its history is all before it, validation included."""
        return list(self._cases(self.test_starts, self.starts[1:]))

    def training_counts(self) -> npt.NDArray[np.int64]:
        """(N,) how often each item occurs in training: its popularity."""
        rows = np.zeros(len(self.items) + 1, dtype=np.int64)
        rows[self.starts[:-1]] += 1
        np.subtract.at(rows, self.validation_starts, 1)
        training = np.cumsum(rows[:-1]) > 0
        return np.bincount(self.items[training], minlength=len(self.item_ids)).astype(np.int64)

    def _training(self) -> list[slice]:
        ranges = zip(self.starts[:-1].tolist(), self.validation_starts.tolist(), strict=True)
        return [slice(start, end) for start, end in ranges if end > start]

    def _cases(self, begins: Offsets, ends: Offsets) -> Iterator[EvaluationCase]:
        """Held-out interactions from begin to end of each user; one without any history asks nothing."""
        for user, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            start = int(self.starts[user])
            for place in range(max(begin, start + 1), end):
                yield EvaluationCase(user, self.items[start:place], int(self.items[place]))


def load_sequences(prepare_dir: Path) -> Sequences:
    """Read the output of the prepare stage.

    Raises:
        DataError: A file is absent or names an unknown item.
        TrainingError: The split leaks.
    """
    try:
        table = pq.read_table(
            prepare_dir / "interactions.parquet",
            columns=["user_id", "item_id", "timestamp", "position", "split"],
            read_dictionary=["user_id", "item_id", "split"],
        )
        item_ids = pq.read_table(prepare_dir / "items.parquet", columns=["item_id"])["item_id"].combine_chunks()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{prepare_dir} is not the output of the prepare stage: {one_line(error)}") from error
    users, user = _codes(table["user_id"])
    names, named = _codes(table["item_id"])
    rows = pc.index_in(names, item_ids)
    if rows.null_count:
        raise DataError(f"{prepare_dir}: {rows.null_count} items have interactions but no row in items.parquet")
    words, worded = _codes(table["split"])
    split = np.array([SPLITS.index(word) for word in words.to_pylist()], dtype=np.int8)[worded]
    if (np.diff(user) < 0).any():
        raise DataError(f"{prepare_dir}/interactions.parquet is not sorted by user; run the prepare stage again")
    check_no_leak(user, table["position"].to_numpy(), split)
    items, times = rows.to_numpy()[named].astype(np.int32), table["timestamp"].to_numpy()
    return _sequences(item_ids.to_pylist(), users.to_pylist(), user, items, times, split)


def _codes(column: pa.ChunkedArray) -> tuple[pa.Array, IntArray]:
    """A dictionary-encoded column as its words and (n,) places in them."""
    array = column.unify_dictionaries().combine_chunks()
    return array.dictionary, array.indices.to_numpy()


def _sequences(
    item_ids: Sequence[str], user_ids: Sequence[str], user: IntArray, items: IntArray, times: Offsets, split: Split
) -> Sequences:
    """Find the points in the sorted rows. Users are numbered in order of appearance, which is sorted order."""
    lengths = np.bincount(user, minlength=len(user_ids))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    held_out = np.bincount(user[split >= VALIDATION], minlength=len(user_ids))
    tested = np.bincount(user[split == TEST], minlength=len(user_ids))
    return Sequences(
        item_ids=item_ids,
        user_ids=user_ids,
        items=items,
        times=times,
        starts=starts,
        validation_starts=starts[1:] - held_out,
        test_starts=starts[1:] - tested,
    )
