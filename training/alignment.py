"""Examples that tie item tokens to words: title -> item, item -> title, the titles of a history -> the next item.

They teach a pretrained language model what its new tokens stand for (LC-Rec, Zheng et al. 2024). Titles are tokenised
once; a batch is put together from pieces, never by tokenizing text across a border. Knows no weights of tasks and no
Trainer.

Shapes: I items of the catalog, n items that are read in all examples, N examples, B of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError, RecipeError
from genrec.history import IGNORE, HistoryEncoder
from genrec.models import Architecture
from training.batches import Batch, Ints, Rows
from training.examples import Batched
from training.item_text import ItemText
from training.ragged import Ragged, ranges
from training.recipe import Recipe
from training.recipe_model import Fitting
from training.recipe_tasks import PLACEHOLDERS, AlignmentTask, Tasks

_OPENING, _CLOSING, _SEPARATOR, _FIRST = range(4)
"""Places among the pieces: what stands before and after what is given, and between; then names of items."""


@dataclass(eq=False)
class AlignmentExamples(Batched):
    """Examples of one task: in a sentence items are given by one kind of name, and one item is asked for by the other.

    Attributes:
        architecture: seq2seq gets the answer as labels; causal gets it after the sentence.
        frame: three rows, what stands before and after what is given, and between two of them.
        given: ``(I,)`` rows, names of items as they are given.
        asked: ``(I,)`` rows, as they are asked for.
        items: ``(n,)`` item rows that are given, in an order in which those of one example stand together.
        begins: ``(N,)`` place of the first of each example among them.
        ends: ``(N,)`` place after its last.
        targets: ``(N,)`` item row that is asked for.
    """

    architecture: Architecture
    frame: Ragged
    given: Ragged
    asked: Ragged
    items: Rows
    begins: Ints
    ends: Ints
    targets: Rows
    epoch: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, indices: Ints) -> Batch:
        """Several examples at once."""
        begins, counts = self.begins[indices], self.ends[indices] - self.begins[indices]
        causal = int(self.architecture == "causal")
        sizes = 2 * counts + 1 + causal  # opening, name, separator, name, …, closing, and the answer of a causal model
        ends = np.cumsum(sizes)
        place = ranges(sizes)
        items = self.items[np.minimum(np.repeat(begins, sizes) + place // 2, len(self.items) - 1)]
        pieces = np.where(place % 2 == 1, _FIRST + items, _SEPARATOR)
        pieces[ends - sizes], pieces[ends - 1 - causal] = _OPENING, _CLOSING
        answers = self.targets[indices].astype(np.int64) + (_FIRST + len(self.given))
        if causal:
            pieces[ends - 1] = answers
            ids, lengths = self._pieces.lines(pieces, sizes)
            places = np.arange(ids.shape[1])
            asked = lengths - self._pieces.sizes[answers]
            learnt = (places >= asked[:, None]) & (places < lengths[:, None])
            return Batch(ids, lengths, np.where(learnt, ids, IGNORE), lengths)
        ids, lengths = self._pieces.lines(pieces, sizes)
        labels, label_lengths = self._pieces.lines(answers, np.ones_like(counts))
        labels[np.arange(labels.shape[1]) >= label_lengths[:, None]] = IGNORE
        return Batch(ids, lengths, labels, label_lengths)

    def lengths(self) -> Ints:
        """``(N,)`` tokens of each input."""
        until = np.concatenate([[0], np.cumsum(self.given.sizes[self.items])])
        between = (self.ends - self.begins - 1) * self.frame.sizes[_SEPARATOR]
        lengths: Ints = until[self.ends] - until[self.begins] + between + self.frame.sizes[:_SEPARATOR].sum()
        return lengths + self.asked.sizes[self.targets] if self.architecture == "causal" else lengths

    def set_epoch(self, epoch: int) -> None:
        """Nothing is random here."""
        self.epoch = epoch

    @cached_property
    def _pieces(self) -> Ragged:
        return Ragged.stacked([self.frame, self.given, self.asked])


def alignment_examples(
    task: AlignmentTask,
    tasks: Tasks,
    text: ItemText,
    encoder: HistoryEncoder,
    architecture: Architecture,
    sequences: Sequence[npt.NDArray[np.int32]],
) -> tuple[AlignmentExamples, int]:
    """The examples of a task, and how many there could not be for want of a title.

    Args:
        task: which.
        tasks: its words.
        text: titles and tokenizer.
        encoder: item rows -> item tokens; its prompt's prefix and suffix stand around every sentence.
        architecture: of the model.
        sequences: training item rows of each user, oldest first.

    Raises:
        DataError: there are no titles, or no example has one.
        RecipeError: the model cannot read or end them.
    """
    wording, titles = tasks.prompts.wording(task), text.titles(tasks.title_column)
    lead = wording.asked_lead if task == "item_to_title" else wording.given_lead
    named = text.title_tokens(titles, lead, tasks.max_title_tokens)
    paths = Ragged.of(list(encoder.paths))
    opening, middle, separator = text.tokens([wording.opening, wording.middle, tasks.title_separator]).rows()
    frame = Ragged.of([
        [*encoder.prompt.prefix_ids, *opening],
        [*middle, *encoder.prompt.suffix_ids],
        separator,
    ])  # fmt: skip
    given, asked = (paths, _ended(named, text.end_id)) if task == "item_to_title" else (named, paths)
    if task == "titles_to_item":
        items, begins, ends, targets, could = _histories(sequences, named.sizes > 0, tasks.max_titles)
    else:
        items = np.flatnonzero(named.sizes).astype(np.int32)
        begins, could = np.arange(len(items)), len(named)
        ends, targets = begins + 1, items
    if not len(targets):
        raise DataError(f"tasks.{task} has no example: no item of a history has a title; set its weight to 0.")
    made = AlignmentExamples(architecture, frame, given, asked, items, begins, ends, targets)
    return made, could - len(made)


def _ended(named: Ragged, end_id: int | None) -> Ragged:
    """Titles with the end token after each, so that a model learns where they end."""
    if end_id is None:
        raise RecipeError(
            "tasks.item_to_title needs a tokenizer with an end token, or a title would never end; set its weight to 0."
        )
    return Ragged.of([[*row, end_id] for row in named.rows()])


def _histories(
    sequences: Sequence[npt.NDArray[np.int32]], titled: npt.NDArray[np.bool_], newest: int
) -> tuple[Rows, Ints, Ints, Rows, int]:
    """Every item but the first of a sequence after the newest titled items before it.

    Returns:
        Titled items of all sequences, where those of each example begin and end, what followed them, and how many
        examples there would be if every item had a title.
    """
    flat = Ragged.of(sequences)
    counts = np.maximum(flat.sizes - 1, 0)
    followed = np.repeat(flat.starts + 1, counts) + ranges(counts)
    until = np.concatenate([[0], np.cumsum(titled[flat.values])])  # titled items before each place
    ends = until[followed]
    begins = np.maximum(until[np.repeat(flat.starts, counts)], ends - newest)
    has = ends > begins
    return flat.values[titled[flat.values]], begins[has], ends[has], flat.values[followed[has]], len(followed)


def check_tasks(recipe: Recipe, fitting: Fitting, section: str) -> None:
    """Refuse tasks of titles for a model or for data that can be known to have no words, before any stage runs.

    Raises:
        RecipeError: they have none.
    """
    if fitting.tasks is None or not fitting.tasks.aligned:
        return
    first = next(task for task in PLACEHOLDERS if task in fitting.tasks.aligned)
    if recipe.model.checkpoint is None and recipe.base is None:
        raise RecipeError(
            f"{section}.tasks.{first} needs a model that reads text, and one of [model.config] has a tokenizer of item "
            f"tokens alone; take a model.checkpoint of a language model, or leave [{section}.tasks] out."
        )
    column, declared = fitting.tasks.title_column, _declared(recipe)
    if declared is not None and column not in declared:
        there = f"there are {', '.join(declared)}" if declared else "there is none"
        raise RecipeError(
            f"{section}.tasks.{first} needs titles from the column {column!r}, which the recipe does not give items "
            f'as a "string"; {there}. Add it to [prepare.items.metadata], or name another in '
            f"{section}.tasks.title_column."
        )


def _declared(recipe: Recipe) -> list[str] | None:
    """The columns of text that the recipe gives its items; None where their file, or a named data set, says."""
    if recipe.prepare.dataset is not None:
        return None
    if recipe.prepare.items is None:
        return []
    metadata = recipe.prepare.items.metadata
    return None if metadata is None else [name for name, column in metadata.items() if column.type == "string"]
