"""Our own engine: level-synchronous beam search that gives what `generate` gives, many times faster.

The prompt is read once, beams are queries over one shared prefix, the trie is walked by tensor operations, and only
children that exist and lead to an allowed item are ever compared. See docs/decoding.md.

Shapes: R requests, B beams, L levels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genrec.decoding.decoder import Decoder, Progress
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.engine import Beam, Query, Scores
from genrec.decoding.graphs import Graphs
from genrec.decoding.limits import Limits, LimitTables
from genrec.decoding.padding import Padded, pad_prompts
from genrec.decoding.selection import Frontier, children_of, follow, select
from genrec.decoding.steps import DecoderSteps
from genrec.errors import EngineError, IllegalBeam, InvalidOutput

_NOT_FINITE = "the model gave log-probabilities that are not finite (NaN or infinite); its answer cannot be trusted."

_SCORED_AT_ONCE = 256
"""Rows scored as the beams of one walk. The mask has a slot of each for each, so its cost grows by the square."""

_MAX_CHILDREN = 1 << 22
"""Children compared at once, over all requests of a batch: some 100 MB of temporary tensors."""


@dataclass(frozen=True, eq=False)
class BeamEngine:
    """Beam search over a decoder and a trie.

    Attributes:
        decoder: the model.
        trie: the items, on the model's device.
        tables: what requests are limited to.
        device: where the model is.
        length_penalty: a score is divided by ``L ** length_penalty``.
        graphs: recorded decodes, where the device has them.
    """

    decoder: Decoder[Any]
    trie: DeviceTrie
    tables: LimitTables
    device: torch.device
    length_penalty: float
    graphs: Graphs | None = None

    @property
    def name(self) -> str:
        """beam"""
        return "beam"

    @torch.inference_mode()
    def search(self, queries: Sequence[Query], num_beams: int) -> list[Beam | EngineError]:
        """See `Engine.search`."""
        outcomes: list[Beam | EngineError] = [InvalidOutput("the search gave no answer.")] * len(queries)
        for places in self._groups(queries, num_beams):
            group = [queries[place] for place in places]
            prompts = pad_prompts([query.prompt for query in group], left=False, device=self.device)
            limits = self.tables.limits([query.allowed for query in group])
            if self.graphs is None:
                frontier = self._decode(prompts, limits, num_beams)
            else:
                frontier = self.graphs.run(self._decode, prompts, limits, num_beams)
            for place, query, outcome in zip(places, group, self._collect(frontier), strict=True):
                outcomes[place] = _complete(outcome, query, num_beams)
        return outcomes

    def _decode(self, prompts: Padded, limits: Limits, num_beams: int) -> Frontier:
        widths = self._widths(num_beams)
        progress, hidden = self.decoder.prefill(prompts, sum(widths[:-1]))
        frontier = Frontier.root(len(prompts.ids), self.device)
        for level, width in enumerate(widths):
            log_probs = self.decoder.head.log_probs(hidden, level)
            children = children_of(self.trie, level, frontier, log_probs, limits)
            frontier = select(frontier, children, width)
            if self.device.type == "cpu":
                frontier = frontier.trimmed()
            if level + 1 < len(widths):
                tokens = self.trie.token_of(level, frontier.nodes)
                hidden = self.decoder.step(progress, tokens, frontier.parents)
        return frontier

    @torch.inference_mode()
    def score(self, query: Query, rows: npt.NDArray[np.int64]) -> Scores:
        """See `Engine.score`. The prompt is read once, and prefixes that rows share are walked once."""
        distinct, back = np.unique(rows, return_inverse=True)
        chunks = [distinct[start : start + _SCORED_AT_ONCE] for start in range(0, len(distinct), _SCORED_AT_ONCE)]
        limits = self.tables.limits([query.allowed])
        progress, hidden = self.decoder.prefill(
            pad_prompts([query.prompt], left=False, device=self.device), _SCORED_AT_ONCE * self.trie.num_levels
        )
        leaves = [self._follow(progress, hidden, limits, chunk) for chunk in chunks]
        if any(bool(frontier.broken) for frontier in leaves):
            raise InvalidOutput(_NOT_FINITE)
        sums = np.concatenate([_to_numpy(frontier.sums)[0] for frontier in leaves]).astype(np.float64)
        renormalised = np.concatenate([_to_numpy(frontier.log_probabilities)[0] for frontier in leaves])
        if not np.isfinite(sums).all():
            raise InvalidOutput(_NOT_FINITE)
        return Scores((sums / self._divisor)[back], renormalised.astype(np.float64)[back])

    def steps(self, query: Query, num_beams: int) -> DecoderSteps:
        """See `Engine.steps`."""
        slots = sum(self._widths(num_beams)[:-1])
        return DecoderSteps(self.decoder, self.trie.tokens, query.prompt, slots, self.device)

    def _follow(self, progress: Progress, hidden: Tensor, limits: Limits, rows: npt.NDArray[np.int64]) -> Frontier:
        """Walk from the root to `rows`, ascending and distinct."""
        progress.rewind()
        frontier = Frontier.root(1, self.device)
        paths = self.tables.nodes_above(rows)
        for level in range(self.trie.num_levels):
            log_probs = self.decoder.head.log_probs(hidden, level)
            children = children_of(self.trie, level, frontier, log_probs, limits)
            nodes, at = np.unique(paths[level + 1], return_index=True)
            parents = np.searchsorted(np.unique(paths[level]), paths[level][at])
            parents_tensor = torch.from_numpy(parents)[None].to(self.device)
            first = self.trie.indptr[level][frontier.nodes].gather(1, parents_tensor)
            places = torch.from_numpy(nodes)[None].to(self.device) - first
            frontier = follow(frontier, children, parents_tensor, places)
            if level + 1 < self.trie.num_levels:
                hidden = self.decoder.step(progress, self.trie.token_of(level, frontier.nodes), frontier.parents)
        return frontier

    @property
    def _divisor(self) -> float:
        """What a summed log-probability is divided by to be a score."""
        return float(self.trie.num_levels**self.length_penalty)

    def _widths(self, num_beams: int) -> list[int]:
        """How many beams there can be after each level."""
        return [min(num_beams, self.trie.num_nodes(level + 1)) for level in range(self.trie.num_levels)]

    def _groups(self, queries: Sequence[Query], num_beams: int) -> Iterator[list[int]]:
        """Places of queries to decode together: of similar length, with few enough masks and children."""
        most = max(
            width * widest for width, widest in zip([1, *self._widths(num_beams)], self.trie.widest, strict=False)
        )
        limit = max(1, _MAX_CHILDREN // most)
        group: list[int] = []
        masks: set[object] = set()
        for place in sorted(range(len(queries)), key=lambda place: len(queries[place].prompt)):
            mask = queries[place].allowed.mask
            if group and (len(group) == limit or len(masks | {mask}) > self.tables.capacity):
                yield group
                group, masks = [], set()
            group.append(place)
            masks.add(mask)
        if group:
            yield group

    def _collect(self, frontier: Frontier) -> Iterator[Beam | EngineError]:
        nodes, sums, log_probabilities, bounds, broken = (
            _to_numpy(part)
            for part in (frontier.nodes, frontier.sums, frontier.log_probabilities, frontier.bound, frontier.broken)
        )
        for row in range(len(nodes)):
            live = sums[row] > -np.inf
            if broken[row]:
                yield InvalidOutput(_NOT_FINITE)
                continue
            scores = sums[row, live].astype(np.float64) / self._divisor
            renormalised = log_probabilities[row, live].astype(np.float64)
            yield Beam.ranked(nodes[row, live], scores, renormalised, float(bounds[row]) / self._divisor)


def _complete(outcome: Beam | EngineError, query: Query, num_beams: int) -> Beam | EngineError:
    if isinstance(outcome, Beam) and len(outcome.rows) != min(num_beams, len(query.allowed)):
        return IllegalBeam(f"the search found {len(outcome.rows)} items; its answer cannot be trusted.")
    return outcome


def _to_numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array
