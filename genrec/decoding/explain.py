"""How a beam search goes, level by level: what was kept, what lost, what was closed, and where the probability went.

A second walk, not a recording: it takes the model's own steps, at the width and with the ties of the search, and keeps
what a search throws away. So it is slower than a search and costs one that is not explained nothing. Its beam is what
`Engine.search` gives.

Shapes: W beams, n children of all of them, N items, L levels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genrec.allowed import AllowedItems
from genrec.decoding.engine import Beam, Steps
from genrec.errors import InvalidOutput
from genrec.semantic_id import SemanticId
from genrec.trie import ItemTrie

MAX_LISTED = 20
"""Prefixes listed of those that lost, and of those that were closed; all of them are counted."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of semantic IDs.

    Attributes:
        semantic_id: its codes.
        log_prob: log-softmax over the full vocabulary, summed down to here, nats. Of a whole semantic ID, divided by
            ``L ** length_penalty``, it is the item's score.
        items: allowed items that begin so.
    """

    semantic_id: SemanticId
    log_prob: float
    items: int


@dataclass(frozen=True, slots=True)
class Mass:
    """Where the probability of the beams goes at a level, relative to what they had: 1 in all.

    Attributes:
        allowed: to codes that lead to an allowed item.
        closed_by_filter: to codes that lead to items, none of them allowed: by filter, exclusion, or items off.
        closed_by_trie: to tokens that lead to no item.
    """

    allowed: float
    closed_by_filter: float
    closed_by_trie: float


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a search. Everything is ordered by `log_prob`, ties by semantic ID.

    Attributes:
        level: from 0.
        kept: the beams after it, all of them.
        pruned: prefixes that were compared with these and lost, the first `MAX_LISTED`.
        pruned_total: how many lost.
        closed: prefixes of the catalog below the beams before it that lead to no allowed item, likewise.
        closed_total: how many there are.
        mass: of the beams before it.
    """

    level: int
    kept: tuple[Prefix, ...]
    pruned: tuple[Prefix, ...]
    pruned_total: int
    closed: tuple[Prefix, ...]
    closed_total: int
    mass: Mass


@dataclass(frozen=True, slots=True)
class Explanation:
    """A search from the root to the items.

    Attributes:
        levels: L of them.
    """

    levels: tuple[Level, ...]


class _Beams(NamedTuple):
    """The beams between two levels, the best first."""

    nodes: npt.NDArray[np.int64]  # (W,)
    sums: npt.NDArray[np.float32]  # (W,), added up in the precision that the search adds in
    log_probabilities: npt.NDArray[np.float64]  # (W,), renormalised as in `Beam`


class _Children(NamedTuple):
    """All children of the beams, those of a beam together."""

    nodes: npt.NDArray[np.int64]  # (n,), at the next level
    parents: npt.NDArray[np.int64]  # (n,), places of beams
    log_probs: npt.NDArray[np.float32]  # (n,)
    items: npt.NDArray[np.int64]  # (n,), allowed ones below

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        return self.items > 0


def explain(
    steps: Steps,
    trie: ItemTrie,
    codes: npt.NDArray[np.int32],
    allowed: AllowedItems,
    num_beams: int,
    length_penalty: float,
) -> tuple[Beam, Explanation]:
    """Search, and tell how it went.

    Args:
        steps: the model, at the prompt.
        trie: the items.
        codes: ``(N, L)`` what the trie's leaves are called.
        allowed: the rows that may be answered; at least one.
        num_beams: the width of the search.
        length_penalty: a score is divided by ``L ** length_penalty``.

    Raises:
        InvalidOutput: the model gave a value that is not finite.
    """
    beams = _Beams(np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1))
    bound = -np.inf
    levels = []
    for level in range(trie.num_levels):
        children = _children(steps, trie, level, beams, allowed)
        sums = beams.sums[children.parents] + children.log_probs
        order = np.lexsort((children.nodes, -sums))
        alive = children.alive[order]
        kept, pruned, closed = order[alive][:num_beams], order[alive][num_beams:], order[~alive]
        named = _Named(level, trie, codes, children, sums)
        levels.append(
            Level(
                level=level,
                kept=named.prefixes(kept),
                pruned=named.prefixes(pruned[:MAX_LISTED]),
                pruned_total=len(pruned),
                closed=named.prefixes(closed[:MAX_LISTED]),
                closed_total=len(closed),
                mass=_mass(beams, children),
            )
        )
        bound = max(bound, float(sums[pruned[0]]) if len(pruned) else -np.inf)
        renormalised = beams.log_probabilities[children.parents] + _renormalised(children)
        beams = _Beams(children.nodes[kept], sums[kept], renormalised[kept])
        if level + 1 < trie.num_levels:
            steps.step(trie.token[level][beams.nodes], children.parents[kept])
    divisor = trie.num_levels**length_penalty
    scores = beams.sums.astype(np.float64) / divisor
    return Beam.ranked(beams.nodes, scores, beams.log_probabilities, bound / divisor), Explanation(tuple(levels))


class _Named(NamedTuple):
    """What is needed to name children."""

    level: int
    trie: ItemTrie
    codes: npt.NDArray[np.int32]
    children: _Children
    sums: npt.NDArray[np.float32]

    def prefixes(self, places: npt.NDArray[np.int64]) -> tuple[Prefix, ...]:
        rows = self.trie.first_leaf[self.level + 1][self.children.nodes[places]]
        names = self.codes[rows, : self.level + 1].tolist()
        numbers = zip(names, self.sums[places].tolist(), self.children.items[places].tolist(), strict=True)
        return tuple(Prefix(tuple(name), log_prob, items) for name, log_prob, items in numbers)


def _children(steps: Steps, trie: ItemTrie, level: int, beams: _Beams, allowed: AllowedItems) -> _Children:
    first, past = trie.indptr[level][beams.nodes], trie.indptr[level][beams.nodes + 1]
    nodes = np.concatenate([np.arange(start, stop) for start, stop in zip(first, past, strict=True)])
    parents = np.repeat(np.arange(len(beams.nodes)), past - first)
    tokens, columns = np.unique(trie.token[level][nodes], return_inverse=True)
    log_probs = steps.log_probs(tokens)[parents, columns]
    if not np.isfinite(log_probs).all():
        raise InvalidOutput("the model gave log-probabilities that are not finite; its answer cannot be trusted.")
    leaf = trie.first_leaf[level + 1]
    return _Children(nodes.astype(np.int64), parents, log_probs, allowed.count(leaf[nodes], leaf[nodes + 1]))


def _mass(beams: _Beams, children: _Children) -> Mass:
    weights = np.exp(beams.sums.astype(np.float64) - beams.sums.max())
    spread = (weights / weights.sum())[children.parents] * np.exp(children.log_probs.astype(np.float64))
    total = max(1.0, float(spread.sum()))  # float32 may round a few parts in a million beyond 1
    allowed, closed = (float(spread[which].sum()) / total for which in (children.alive, ~children.alive))
    return Mass(allowed, closed, max(0.0, 1.0 - allowed - closed))


def _renormalised(children: _Children) -> npt.NDArray[np.float64]:
    """``(n,)`` the log-probabilities of living children, renormalised over the living ones of their parent."""
    log_probs = np.where(children.alive, children.log_probs.astype(np.float64), -np.inf)
    starts = np.flatnonzero(np.diff(children.parents, prepend=-1))
    totals = np.logaddexp.reduceat(log_probs, starts)
    return log_probs - totals[children.parents]
