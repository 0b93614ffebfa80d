"""`genrec prepare --show N`: training examples as a reader sees them, token by token, with what a loss is taken on.

Decoded from the very ids and labels that a batch holds, not from the items that they were made of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from genrec.history import IGNORE
from genrec.models import Architecture, load_tokenizer
from training.corpus import Corpus
from training.examples import Example, Examples
from training.mixed_examples import MixedExamples
from training.pipeline import run_pipeline
from training.progress import Progress
from training.recipe import Recipe
from training.stages import stages_of

BEFORE_FITTING = "vocabulary"
LEARNT, READ = "●", "·"
LEGEND = f"{LEARNT} a loss is taken on this token, {READ} it is only read"
_TITLES = ("title", "name")


@dataclass(frozen=True, eq=False)
class Decoder:
    """Ids back to tokens and items.

    Attributes:
        tokenizer: Names tokens.
        titles: Token path -> what its item is called.
        item_token_ids: Ids that belong to items.
        num_levels: Tokens of an item.
        architecture: Whether labels are an answer of their own or stand with the input.
    """

    tokenizer: PreTrainedTokenizerBase
    titles: Mapping[tuple[int, ...], str]
    item_token_ids: frozenset[int]
    num_levels: int
    architecture: Architecture

    def lines(self, example: Example) -> Iterator[str]:
        """One line an item, one a run of other tokens, learnt or read; the labels of an encoder-decoder come after."""
        ids, labels = list(example["input_ids"]), list(example["labels"])
        if self.architecture == "seq2seq":
            yield from self._rows(ids, [IGNORE] * len(ids))
            yield "  answer:"
            ids = labels
        yield from self._rows(ids, labels)

    def _rows(self, ids: Sequence[int], labels: Sequence[int]) -> Iterator[str]:
        for at, end in self._pieces(labels, ids):
            meant = [
                asked if asked != IGNORE else seen for seen, asked in zip(ids[at:end], labels[at:end], strict=True)
            ]
            marks = "".join(READ if label == IGNORE else LEARNT for label in labels[at:end])
            tokens = " ".join(self.tokenizer.convert_ids_to_tokens(ids[at:end]))
            hidden = "hidden in the input: " if meant != list(ids[at:end]) else ""
            title = self.titles.get(tuple(meant), "")
            yield f"  {marks:<{self.num_levels}}  {tokens:<{9 * self.num_levels}}  {hidden}{title}".rstrip()

    def _pieces(self, labels: Sequence[int], ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Where items and runs of other tokens, learnt or read, begin and end; a hidden item is told by its labels."""
        of_item = [
            (asked if asked != IGNORE else seen) in self.item_token_ids for seen, asked in zip(ids, labels, strict=True)
        ]
        learnt = [label != IGNORE for label in labels]
        at = 0
        while at < len(ids):
            end = at + self.num_levels if of_item[at] else at + 1
            while not of_item[at] and end < len(ids) and not of_item[end] and learnt[end] == learnt[at]:
                end += 1
            yield at, min(end, len(ids))
            at = end


def show_examples(recipe: Recipe, work: Path, count: int, progress: Progress) -> list[str]:
    """Bring the stages before fitting up to date; some examples of the first fitting stage, drawn by the seed.

    Raises:
        GenrecError: whatever those stages raise.
    """
    stages = stages_of(recipe)
    run_pipeline(stages, recipe, work, progress, until=BEFORE_FITTING)
    corpus = Corpus.load({stage.name: work / stage.name for stage in stages}, recipe)
    first = recipe.pretrain is not None and recipe.base is None
    stage, settings = ("pretrain", recipe.pretrain) if first and recipe.pretrain else ("finetune", recipe.finetune)
    examples = corpus.training_examples(settings)
    decoder = Decoder(
        load_tokenizer(work / BEFORE_FITTING / "model"),
        _titles(work / "prepare", corpus),
        frozenset(token for level in corpus.tokens.token_ids for token in level),
        corpus.tokens.num_levels,
        corpus.architecture,
    )
    shown = [LEGEND]
    for index, task in _drawn(examples, count, recipe.seed):
        head = f"{stage}, example {index + 1:,} of {len(examples):,}"
        shown += ["", f"{head}: {task}" if task else head, *decoder.lines(examples[index])]
    return shown


def _drawn(examples: Examples, count: int, seed: int) -> list[tuple[int, str]]:
    """Some examples and the names of their tasks, one of each task before another of any; in their order."""
    rng = np.random.default_rng(seed)
    if not isinstance(examples, MixedExamples):
        return [(index, "") for index in np.sort(rng.permutation(len(examples))[:count]).tolist()]
    shuffled = [rng.permutation(places).tolist() for places in examples.places()]
    names = [part.task for part in examples.parts]
    rounds = zip_longest(*([(index, name) for index in one] for one, name in zip(shuffled, names, strict=True)))
    return sorted(islice((one for each in rounds for one in each if one is not None), count))


def _titles(prepared: Path, corpus: Corpus) -> dict[tuple[int, ...], str]:
    items = pl.read_parquet(prepared / "items.parquet")
    texts = [name for name, kind in items.schema.items() if kind == pl.String and name != "item_id"]
    column = next((name for name in texts if name.lower() in _TITLES), next(iter(texts), "item_id"))
    named = items.select(pl.coalesce(column, "item_id")).to_series().to_list()
    return dict(zip(map(tuple, corpus.encoder.paths.tolist()), named, strict=True))
