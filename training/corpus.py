"""What a model is fitted on: histories, their item tokens, and the questions that validation asks.

Puts together what the stages before wrote. Knows no Trainer. An item is its row in ``items.parquet`` here; the bundle
sorts rows by token path later.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from genrec.allowed import AllowedItems, ItemMask
from genrec.checkpoint import read_texts
from genrec.decoding.beam import BeamEngine
from genrec.decoding.decoders import forward_decoder
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.engine import Beam, Engine, Query
from genrec.decoding.generate import GenerateEngine
from genrec.decoding.limits import LimitTables
from genrec.errors import DataError, RecipeError
from genrec.history import HistoryEncoder, Prompt
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.models import Architecture, load_tokenizer, plugin_of
from genrec.trie import ItemTrie, sort_order
from training.alignment import alignment_examples
from training.examples import Examples, LastItemExamples, MaskedExamples, WindowExamples
from training.item_text import ItemText
from training.mixed_examples import MixedExamples, Part
from training.recipe import Recipe
from training.recipe_model import Fitting
from training.recipe_tasks import NEXT_ITEM, PLACEHOLDERS, Tasks
from training.sequences import EvaluationCase, Sequences, load_sequences
from training.vocabulary import decoder_prefix, prompt_ids, read_codes, read_item_tokens

T = TypeVar("T")
RECALL_AT = 10
RECALL_BEAMS = 20
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Corpus:
    """Histories in terms of item tokens.

    Attributes:
        sequences: all histories with their split.
        tokens: which token id stands for which code.
        encoder: item rows -> ids.
        architecture: of the model that will read them.
        decoder_prefix_ids: what the decoder starts with; empty for causal models.
        mask_id: the tokenizer's unknown token, if it has one.
        seed: draws the validation users, the places of windows and the items to hide.
        text: titles of the items, and how the model reads them.
        model_inputs: what the model takes beside ids and mask.
    """

    sequences: Sequences
    tokens: ItemTokens
    encoder: HistoryEncoder
    architecture: Architecture
    decoder_prefix_ids: tuple[int, ...]
    mask_id: int | None
    seed: int
    text: ItemText
    model_inputs: ModelInputs = NO_INPUTS

    @classmethod
    def load(cls, inputs: Mapping[str, Path], recipe: Recipe) -> "Corpus":
        """Read the results of `prepare`, `quantize` and `vocabulary`."""
        tokens = read_item_tokens(inputs["vocabulary"])
        model, architecture = inputs["vocabulary"] / "model", recipe.model.architecture
        codes = read_codes(inputs["quantize"]).drop("item_id").to_numpy().astype(np.int32)
        plugin = plugin_of(read_texts(model))
        tokenizer = load_tokenizer(model)
        pieces = prompt_ids(tokenizer, recipe.prompt)
        prompt = Prompt(**pieces, max_history_items=recipe.prompt.max_history_items)  # type: ignore[arg-type]  # ids
        encoder = HistoryEncoder(prompt, tokens.paths(codes))
        sequences = load_sequences(inputs["prepare"])
        prefix = decoder_prefix(model, architecture)
        extra = NO_INPUTS if plugin is None else plugin.model_inputs(tokens)
        text = ItemText(tokenizer, inputs["prepare"] / "items.parquet", tokens)
        return cls(sequences, tokens, encoder, architecture, prefix, tokenizer.unk_token_id, recipe.seed, text, extra)

    def training_examples(self, settings: Fitting) -> Examples:
        """From the training part of each history only; titles, where the recipe has tasks of them, from every item.

        Raises:
            DataError: nobody has two training items, so nothing follows anything; or there are no titles to learn.
            RecipeError: items are to be hidden, and the tokenizer has no token for it; or it cannot read titles.
        """
        whole, whole_times = self.sequences.training_sequences(), self.sequences.training_times()
        sequences = [sequence for sequence in whole if len(sequence) > 1]
        times = [times for times in whole_times if len(times) > 1] if settings.reorder_ties else None
        if not sequences:
            raise DataError(
                "no user has two training interactions, so there is nothing to learn from; give longer histories, or "
                "lower the filters of [prepare]."
            )
        examples: Examples = (
            WindowExamples(self.encoder, sequences, self.seed, times)
            if settings.examples == "window"
            else LastItemExamples(self.encoder, self.architecture, sequences, [1] * len(sequences))
        )
        if settings.mask_share:
            examples = self._masked(examples, settings.mask_share)
        return examples if settings.tasks is None else self._mixed(examples, settings.tasks, sequences)

    def _masked(self, examples: Examples, share: float) -> MaskedExamples:
        if self.mask_id is None:
            raise RecipeError(
                "mask_share hides items behind the tokenizer's unknown token, and it has none; set it to 0."
            )
        ids = np.unique(np.concatenate([np.asarray(level) for level in self.tokens.token_ids]))
        return MaskedExamples(examples, ids, self.tokens.num_levels, share, self.mask_id, self.seed)

    def _mixed(self, following: Examples, tasks: Tasks, sequences: Sequence[npt.NDArray[np.int32]]) -> MixedExamples:
        """The next item beside tasks of titles, as many examples of each as its weight says."""

        def count(weight: float) -> int:
            return max(1, round(weight * len(following)))

        parts = [Part(NEXT_ITEM, following, count(tasks.next_item), 0)] if tasks.next_item else []
        for stream, task in enumerate(PLACEHOLDERS, start=1):
            if task in tasks.aligned:
                made, left_out = alignment_examples(task, tasks, self.text, self.encoder, self.architecture, sequences)
                parts.append(Part(task, made, count(tasks.aligned[task]), stream, left_out))
        return MixedExamples(tuple(parts), self.seed)

    def validation_examples(self, num_users: int) -> LastItemExamples:
        """The validation items of some users, each after the training part of its history.

        Raises:
            DataError: there are none, and training would not know when to stop.
        """
        cases = self.validation_cases(num_users)
        if not cases:
            raise DataError(
                "no user has a validation item after a training item; best weights are chosen on validation, so give "
                "[prepare] a split that has some."
            )
        whole = [np.append(case.history, np.int32(case.target)) for case in cases]
        return LastItemExamples(self.encoder, self.architecture, whole, [len(sequence) - 1 for sequence in whole])

    def validation_cases(self, num_users: int | None = None) -> list[EvaluationCase]:
        """Validation questions, of at most so many users, drawn by the seed."""
        return sample(self.sequences.validation_cases(), num_users, self.seed)

    def recall(self, num_users: int | None = None) -> Callable[[PreTrainedModel], float]:
        """A function that gives a model's validation Recall@10, seen items excluded."""
        cases = self.validation_cases(num_users)
        return lambda model: self._recall(model, cases)

    def validation_recall(self, model: PreTrainedModel, num_users: int) -> tuple[float | None, str]:
        """Recall@10 of a model on at most so many validation users, and the sentence for the display.

        The number is None where nothing is held out.
        """
        cases = self.validation_cases(num_users)
        if not cases:
            return None, "validation recall@10 not measured, nothing is held out"
        recall = self._recall(model, cases)
        return recall, f"validation recall@10 {recall:.4f} on {len(cases):,} users"

    def _recall(self, model: PreTrainedModel, cases: Sequence[EvaluationCase]) -> float:
        was_training = model.training
        model.eval()
        engine = self._engine(model)
        catalog = ItemMask.everything(self._trie.num_items)
        hits = 0
        for at in range(0, len(cases), _BATCH):
            batch = cases[at : at + _BATCH]
            queries = [
                Query(
                    self.encoder.encode(case.history.tolist()),
                    AllowedItems.all_but(self._leaf_of_row[case.history].tolist(), catalog),
                )
                for case in batch
            ]
            beams = engine.search(queries, RECALL_BEAMS)
            hits += sum(
                int(isinstance(beam, Beam) and self._leaf_of_row[case.target] in beam.rows[:RECALL_AT])
                for case, beam in zip(batch, beams, strict=True)
            )
        model.train(was_training)
        return hits / len(cases) if cases else float("nan")

    def _engine(self, model: PreTrainedModel) -> Engine:
        """What searches with a model in training, adapters and all: its own forward, which beams share if it can.

        With 20 beams `generate` reads every prompt 20 times.
        """
        if self.architecture == "causal":
            trie = DeviceTrie.of(self._trie, model.device)
            decoder = forward_decoder(model, trie.tokens)
            if decoder is not None:
                tables = LimitTables(self._trie, model.device)
                return BeamEngine(decoder, trie, tables, model.device, length_penalty=1.0)
        return GenerateEngine(model, self._trie, self.decoder_prefix_ids, 1.0, self.model_inputs)

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return sort_order(self.encoder.paths)

    @cached_property
    def _trie(self) -> ItemTrie:
        return ItemTrie.from_sorted(self.encoder.paths[self._order])

    @cached_property
    def _leaf_of_row(self) -> npt.NDArray[np.int64]:
        leaves = np.empty_like(self._order)
        leaves[self._order] = np.arange(len(leaves))
        return leaves


def sample(cases: Sequence[T], count: int | None, seed: int) -> list[T]:
    """At most `count` cases, drawn without replacement, in their order."""
    if count is None or count >= len(cases):
        return list(cases)
    chosen = np.random.default_rng(seed).choice(len(cases), size=count, replace=False)
    return [cases[index] for index in np.sort(chosen)]
