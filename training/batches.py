"""Many prompts at once, as matrices: what `genrec.history.HistoryEncoder` gives one by one, without a loop over items.

The encoder stays the definition; tests hold every matrix against it. Also the collator, which makes a batch of matrices
or of single examples a batch of tensors. Knows no sequences and no Trainer.

Shapes: B prompts, C items of the longest history, L tokens an item, T tokens of the longest prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from genrec.history import IGNORE, HistoryEncoder
from genrec.model_inputs import NO_INPUTS, ModelInputs

Example = Mapping[str, list[int]]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples, padded on the right.

    Attributes:
        input_ids: ``(B, T)`` int64, 0 where there is no token.
        lengths: ``(B,)`` tokens of each.
        labels: ``(B, T')`` int64, IGNORE where there is no loss.
        label_lengths: ``(B,)`` labels of each, those without a loss included.
    """

    input_ids: Ints
    lengths: Ints
    labels: Ints
    label_lengths: Ints

    def __len__(self) -> int:
        return len(self.lengths)

    def example(self, index: int) -> Example:
        """One of them, without its padding."""
        return {
            "input_ids": self.input_ids[index, : self.lengths[index]].tolist(),
            "labels": self.labels[index, : self.label_lengths[index]].tolist(),
        }

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Batch":
        """Single examples side by side."""
        inputs, lengths = _padded([example["input_ids"] for example in examples], 0)
        labels, label_lengths = _padded([example["labels"] for example in examples], IGNORE)
        return cls(inputs, lengths, labels, label_lengths)

    @classmethod
    def stacked(cls, batches: Sequence["Batch"]) -> "Batch":
        """The examples of several batches, one batch after the other, padded to the longest."""
        return cls(
            _stacked([batch.input_ids for batch in batches], 0),
            np.concatenate([batch.lengths for batch in batches]),
            _stacked([batch.labels for batch in batches], IGNORE),
            np.concatenate([batch.label_lengths for batch in batches]),
        )

    def in_order(self, order: Ints) -> "Batch":
        """Its examples in another order, ``(B,)`` places."""
        return Batch(self.input_ids[order], self.lengths[order], self.labels[order], self.label_lengths[order])


@dataclass(frozen=True, eq=False)
class BatchEncoder:
    """The encoder's methods of the same names, for B histories at once.

    Attributes:
        encoder: what a prompt is.
    """

    encoder: HistoryEncoder

    def encode(self, rows: Rows, counts: Ints) -> tuple[Ints, Ints]:
        """Prompts of histories.

        Args:
            rows: ``(B, C)`` item rows, oldest first; what is beyond a history is any valid row.
            counts: ``(B,)`` items of each, at least 1 and at most `max_history_items`.

        Returns:
            ids ``(B, T)``, 0 beyond the prompt, and lengths ``(B,)``.
        """
        ids, ends = self._joined(rows, counts, room=len(self._suffix))
        return self._closed(ids, _put(ids, ends, np.broadcast_to(self._suffix, (len(ids), len(self._suffix)))))

    def targets(self, rows: Rows) -> Ints:
        """``(B, L)`` tokens that name each item."""
        return self._paths[rows]

    def continuation(self, rows: Rows, counts: Ints, targets: Rows) -> Batch:
        """Prompts with their answers, for a causal model; a loss on the answer alone."""
        answers = self.targets(targets)
        ids, ends = self._joined(rows, counts, room=len(self._suffix) + answers.shape[1])
        asked = _put(ids, ends, np.broadcast_to(self._suffix, (len(ids), len(self._suffix))))
        ids, lengths = self._closed(ids, _put(ids, asked, answers))
        labels = np.where(np.arange(ids.shape[1]) >= asked[:, None], ids, IGNORE)
        labels[np.arange(ids.shape[1]) >= lengths[:, None]] = IGNORE
        return Batch(ids, lengths, labels, lengths)

    def window(self, rows: Rows, counts: Ints) -> Batch:
        """Consecutive items with a loss on each that a prompt could ask for, for a causal model.

        Args:
            rows: ``(B, C)`` item rows, as for `encode`.
            counts: ``(B,)`` items of each, at least 1 and at most one more than `max_history_items`.
        """
        ids, ends = self._joined(rows, counts, room=0)
        ids, lengths = self._closed(ids, ends)
        place = np.arange(ids.shape[1]) - len(self._prefix)
        asked = (place >= 0) & (place % self._stride < self._levels)
        if len(self._suffix):  # ends every prompt, that of an empty history too, and does not stand before the first
            asked &= place >= self._stride
        return Batch(ids, lengths, np.where(asked & (np.arange(len(place)) < lengths[:, None]), ids, IGNORE), lengths)

    def prompt_lengths(self, counts: Ints) -> Ints:
        """Tokens of prompts of so many items."""
        return self.window_lengths(counts) + len(self._suffix)

    def window_lengths(self, counts: Ints) -> Ints:
        """Tokens of windows of so many items."""
        return len(self._prefix) + counts * self._stride - len(self._separator)

    def _joined(self, rows: Rows, counts: Ints, room: int) -> tuple[Ints, Ints]:
        """Prefix and items joined by separators, with at least `room` columns beyond; where each one ends."""
        size, items = rows.shape
        ends = self.window_lengths(counts)
        blocks = np.empty((size, items, self._stride), dtype=np.int64)
        blocks[:, :, : self._levels] = self._paths[rows]
        blocks[:, :, self._levels :] = self._separator
        start, block = len(self._prefix), items * self._stride
        ids = np.zeros((size, start + block + room), dtype=np.int64)
        ids[:, :start] = self._prefix
        ids[:, start : start + block] = blocks.reshape(size, block)
        return ids, ends

    def _closed(self, ids: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """Cut to the longest, and 0 beyond each."""
        ids = ids[:, : int(lengths.max())]
        ids[np.arange(ids.shape[1]) >= lengths[:, None]] = 0
        return ids, lengths

    @cached_property
    def _paths(self) -> Ints:
        return self.encoder.paths.astype(np.int64)

    @property
    def _levels(self) -> int:
        return int(self.encoder.paths.shape[1])

    @property
    def _stride(self) -> int:
        return self._levels + len(self._separator)

    @cached_property
    def _prefix(self) -> Ints:
        return np.array(self.encoder.prompt.prefix_ids, dtype=np.int64)

    @cached_property
    def _separator(self) -> Ints:
        return np.array(self.encoder.prompt.item_separator_ids, dtype=np.int64)

    @cached_property
    def _suffix(self) -> Ints:
        return np.array(self.encoder.prompt.suffix_ids, dtype=np.int64)


@dataclass(frozen=True)
class Collator:
    """A batch of tensors: inputs under an attention mask, and what the model's family asks for beside them.

    Attributes:
        model_inputs: the extra inputs of the model.
        pad_to_multiple_of: the width of inputs is a multiple of it, so there are few widths.
    """

    model_inputs: ModelInputs = NO_INPUTS
    pad_to_multiple_of: int = 1

    def __call__(self, examples: Batch | Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` and the extra inputs, int64."""
        batch = examples if isinstance(examples, Batch) else Batch.of(examples)
        width = -(-batch.input_ids.shape[1] // self.pad_to_multiple_of) * self.pad_to_multiple_of
        beyond = width - batch.input_ids.shape[1]
        aligned = batch.labels.shape[1] == batch.input_ids.shape[1]  # of a decoder-only model: one label a token
        ids = torch.from_numpy(np.pad(batch.input_ids, ((0, 0), (0, beyond))))
        labels = np.pad(batch.labels, ((0, 0), (0, beyond if aligned else 0)), constant_values=IGNORE)
        mask = torch.from_numpy((np.arange(width) < batch.lengths[:, None]).astype(np.int64))
        return {
            "input_ids": ids,
            "attention_mask": mask,
            **self.model_inputs(ids, mask),
            "labels": torch.from_numpy(labels),
        }


def _put(ids: Ints, starts: Ints, pieces: Ints) -> Ints:
    """Write a piece into each row from its start on, in place; where the pieces end."""
    columns = starts[:, None] + np.arange(pieces.shape[1])
    np.put_along_axis(ids, columns, pieces, axis=1)
    ends: Ints = starts + pieces.shape[1]
    return ends


def _stacked(matrices: Sequence[Ints], fill: int) -> Ints:
    width = max(matrix.shape[1] for matrix in matrices)
    wide = [np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=fill) for one in matrices]
    return np.concatenate(wide)


def _padded(lists: Sequence[Sequence[int]], fill: int) -> tuple[Ints, Ints]:
    lengths = np.array([len(ids) for ids in lists], dtype=np.int64)
    matrix = np.full((len(lists), int(lengths.max())), fill, dtype=np.int64)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(ids) for ids in lists])
    return matrix, lengths
