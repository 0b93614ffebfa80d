"""The engine that is Hugging Face `generate`: works for every model, and is the oracle for faster ones.

Shapes: R queries, B beams, V vocabulary, L levels, T prompt tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, PreTrainedModel

from genrec.allowed import AllowedItems
from genrec.decoding.engine import Beam, Query, Scores
from genrec.decoding.padding import pad_prompts
from genrec.decoding.scoring import path_distributions
from genrec.decoding.steps import ModelSteps
from genrec.errors import EngineError, IllegalBeam, InvalidOutput
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.model_plugin import check_inputs
from genrec.trie import ItemTrie

# `generate` starts all beams but the first at -1e9, so that copies of one prefix lose; a summed log-probability that
# still carries that number at the end is filler, not an item.
_FILLER = -1e6

_SCORED_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class GenerateEngine:
    """Beam search by `model.generate(prefix_allowed_tokens_fn=…)`.

    Attributes:
        model: a Hugging Face model whose generation config is empty (`genrec.models.load_model` sees to it).
        trie: the items that exist.
        decoder_prefix_ids: what the decoder starts with; empty for a decoder-only model.
        length_penalty: a score is divided by ``L ** length_penalty``.
        inputs: what the model takes beside ids and mask.
    """

    model: PreTrainedModel
    trie: ItemTrie
    decoder_prefix_ids: tuple[int, ...]
    length_penalty: float
    inputs: ModelInputs = NO_INPUTS

    def __post_init__(self) -> None:
        check_inputs(self.model, self.inputs)

    @property
    def name(self) -> str:
        """generate"""
        return "generate"

    @torch.inference_mode()
    def search(self, queries: Sequence[Query], num_beams: int) -> list[Beam | EngineError]:
        """See `Engine.search`."""
        encoder_decoder = self.model.config.is_encoder_decoder
        prompts = pad_prompts([query.prompt for query in queries], left=not encoder_decoder, device=self.model.device)
        start = len(self.decoder_prefix_ids) if encoder_decoder else prompts.ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": prompts.ids, "attention_mask": prompts.mask}
        inputs |= self.inputs(prompts.ids, prompts.mask)
        if encoder_decoder:
            prefix = torch.tensor([self.decoder_prefix_ids], device=self.model.device)
            inputs["decoder_input_ids"] = prefix.expand(len(queries), -1)
        out = self.model.generate(
            **inputs,
            generation_config=self._generation_config(num_beams),
            prefix_allowed_tokens_fn=_walk(self.trie, queries, start),
        )
        found = _greedy(out.sequences[:, start:], out.logits, out.scores, self._divisor) if num_beams == 1 else out
        paths = out.sequences[:, start:].view(len(queries), num_beams, -1).cpu().numpy()
        scores = found.sequences_scores.double().view(len(queries), num_beams).cpu().numpy()
        renormalised = _renormalise(found.scores, out.sequences[:, start:], found.beam_indices)
        log_probabilities = renormalised.view(len(queries), num_beams).cpu().numpy()
        bounds = _bounds(found.scores, num_beams) / self._divisor
        return [
            self._collect(
                paths[index], scores[index], log_probabilities[index], float(bounds[index]), len(query.allowed)
            )
            for index, query in enumerate(queries)
        ]

    def score(self, query: Query, rows: npt.NDArray[np.int64]) -> Scores:
        """See `Engine.score`: every path is fed whole, prompt and all."""
        paths = self.trie.paths[rows]
        sums, renormalised = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            part = slice(start, start + _SCORED_AT_ONCE)
            given = [query.prompt] * len(paths[part])
            part_of = paths[part].tolist()
            log_probs = path_distributions(self.model, given, part_of, self.decoder_prefix_ids, self.inputs)
            found = log_probs.double().cpu().numpy()
            levels = np.arange(self.trie.num_levels)
            sums[part] = [float(one[levels, path].sum()) for one, path in zip(found, paths[part], strict=True)]
            if not np.isfinite(sums[part]).all():
                raise InvalidOutput("the model gave log-probabilities that are not finite; none can be trusted.")
            renormalised[part] = [
                _constrained(self.trie, query.allowed, one, path) for one, path in zip(found, paths[part], strict=True)
            ]
        return Scores(sums / self._divisor, renormalised)

    def steps(self, query: Query, num_beams: int) -> ModelSteps:
        """See `Engine.steps`."""
        return ModelSteps(self.model, query.prompt, self.decoder_prefix_ids, self.inputs)

    @property
    def _divisor(self) -> float:
        """What a summed log-probability is divided by to be a score."""
        return float(self.trie.num_levels**self.length_penalty)

    def _generation_config(self, num_beams: int) -> GenerationConfig:
        # No eos_token_id: exactly L tokens are generated and none may end the search early.
        return GenerationConfig(
            num_beams=num_beams,
            num_return_sequences=num_beams,
            max_new_tokens=self.trie.num_levels,
            min_new_tokens=None,
            length_penalty=self.length_penalty,
            early_stopping=True,
            do_sample=False,
            output_scores=True,
            output_logits=num_beams == 1,
            return_dict_in_generate=True,
            pad_token_id=self.model.config.pad_token_id or 0,
            decoder_start_token_id=self.decoder_prefix_ids[0] if self.decoder_prefix_ids else None,
        )

    def _collect(
        self, paths: np.ndarray, scores: np.ndarray, log_probabilities: np.ndarray, bound: float, num_allowed: int
    ) -> Beam | EngineError:
        if np.isnan(bound):
            return InvalidOutput("the model gave NaN log-probabilities; its answer cannot be trusted.")
        live = np.flatnonzero(scores * self._divisor > _FILLER)
        if len(live) != min(len(scores), num_allowed):
            return IllegalBeam(f"the search found {len(live)} items; its answer cannot be trusted.")
        leaves = [self.trie.descend(paths[place].tolist()) for place in live]
        if None in leaves:
            return IllegalBeam("the search left the trie; its answer cannot be trusted.")
        rows = np.asarray(leaves, dtype=np.int64)
        try:
            return Beam.ranked(rows, scores[live], log_probabilities[live], bound)
        except EngineError as error:
            return error


class _Found(NamedTuple):
    """What `generate` gives of a beam search."""

    scores: tuple[torch.Tensor, ...]  # L tensors (R * B, V): log-softmax over the vocabulary, -inf where not allowed
    beam_indices: torch.Tensor  # (R * B, L) the row of each step that the token was taken from
    sequences_scores: torch.Tensor  # (R * B,)


def _greedy(
    paths: torch.Tensor, logits: Sequence[torch.Tensor], masked: Sequence[torch.Tensor], divisor: float
) -> _Found:
    """The same of a single beam: to `generate` that is greedy search, which keeps logits alone."""
    steps = tuple(
        free.float().log_softmax(dim=-1).masked_fill(held == -torch.inf, -torch.inf)
        for free, held in zip(logits, masked, strict=True)
    )
    taken = torch.stack([step.gather(1, paths[:, level, None])[:, 0] for level, step in enumerate(steps)], dim=1)
    beams = torch.arange(len(paths), device=paths.device)[:, None].expand_as(paths)
    return _Found(steps, beams, taken.sum(dim=1) / divisor)


def _constrained(trie: ItemTrie, allowed: AllowedItems, log_probs: np.ndarray, path: np.ndarray) -> float:
    """Log-probability of a path when each level, ``(L, V)``, is renormalised over what leads to an allowed item."""
    total = 0.0
    for level, token in enumerate(path.tolist()):
        tokens = _allowed_tokens(trie, allowed, path[:level].tolist())
        if token not in tokens:
            return -np.inf
        total += float(log_probs[level, token] - np.logaddexp.reduce(log_probs[level, tokens]))
    return total


def _allowed_tokens(trie: ItemTrie, allowed: AllowedItems, prefix: Sequence[int]) -> list[int]:
    """The tokens after `prefix` that lead on to an allowed item; none after a prefix that no item has."""
    node = trie.descend(prefix)
    if node is None:
        return []
    level = len(prefix)
    below = trie.children(level, node)
    first_leaf = trie.first_leaf[level + 1]
    alive = allowed.count(first_leaf[below], first_leaf[below.start + 1 : below.stop + 1]) > 0
    tokens: list[int] = trie.token[level][below][alive].tolist()
    return tokens


def _walk(trie: ItemTrie, queries: Sequence[Query], start: int) -> Callable[[int, torch.Tensor], list[int]]:
    """The `prefix_allowed_tokens_fn`: tokens that lead on to an allowed item of that query."""
    dead_end = [int(trie.token[0][0])]  # generate insists on one token; a dead beam stays at -inf whatever it takes

    def allowed_tokens(query: int, ids: torch.Tensor) -> list[int]:
        return _allowed_tokens(trie, queries[query].allowed, ids[start:].tolist()) or dead_end

    return allowed_tokens


def _renormalise(steps: tuple[torch.Tensor, ...], paths: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    """Log-probability of each path when every level is renormalised over its allowed tokens.

    Args:
        steps: L tensors ``(R * B, V)``: log-softmax over the vocabulary, -inf where not allowed.
        paths: ``(R * B, L)`` tokens; negative for filler.
        beams: ``(R * B, L)`` the row of each step that the token was taken from; negative for filler.
    """
    total = torch.zeros(len(paths), dtype=torch.float64, device=paths.device)
    for level, step in enumerate(steps):
        rows = step[beams[:, level].clamp(min=0).long()].double()
        total += rows.gather(1, paths[:, level, None].clamp(min=0)).squeeze(1) - rows.logsumexp(dim=1)
    return total


def _bounds(steps: tuple[torch.Tensor, ...], num_beams: int) -> np.ndarray:
    """Highest summed log-probability among the prefixes that were pruned, for each query.

    -inf if none was pruned; NaN if a log-probability of that query is NaN.

    `generate` does not keep the sums of its beams, but they follow from the scores of its steps: the beams of the next
    step are the best B candidates of this one, in order, and the (B + 1)-th is the best that was pruned.
    """
    num_queries = len(steps[0]) // num_beams
    sums = torch.zeros(num_queries, num_beams, dtype=torch.float32, device=steps[0].device)
    sums[:, 1:] = -1e9
    bound = torch.full((num_queries,), -torch.inf, dtype=torch.float32, device=steps[0].device)
    for step in steps:
        broken = step.view(num_queries, -1).isnan().any(dim=1)
        candidates = (step.view(num_queries, num_beams, -1) + sums[:, :, None]).flatten(1)
        best = candidates.topk(num_beams + 1, dim=1).values
        sums, pruned = best[:, :num_beams], best[:, num_beams]
        bound = torch.maximum(bound, torch.where(pruned > _FILLER, pruned, -torch.inf))
        bound[broken] = torch.nan
    return bound.double().cpu().numpy()
