"""One level of beam search: from the beams' nodes to the best of their children, as tensor operations.

Nothing here depends on the model, and nothing waits for the device.

Shapes: R requests, W beams before, B beams kept, K most children of a node, C tokens of the level.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.limits import Limits

_LOW_BITS = 0xFFFFFFFF


class Children(NamedTuple):
    """The children of all beams, those that lead to an allowed item alive."""

    nodes: Tensor  # (R, W, K) int64, at the next level; any number where not alive
    alive: Tensor  # (R, W, K) bool
    log_probs: Tensor  # (R, W, K) float32, over the full vocabulary


@dataclass(frozen=True, eq=False)
class Frontier:
    """The beams of R requests at one level, dead ones with a sum of -inf.

    Attributes:
        nodes: ``(R, W)`` int64, nodes of the trie, the best first.
        sums: ``(R, W)`` float32, log-probability of the prefix over the full vocabulary.
        log_probabilities: ``(R, W)`` float32, the same renormalised at every level over what leads to an allowed item.
        parents: ``(R, W)`` int64, the place of each beam's parent in the frontier before.
        bound: ``(R,)`` float32, the highest sum that was pruned so far.
        broken: ``(R,)`` bool, a log-probability that counts was NaN, which is what infinite or NaN logits become.
    """

    nodes: Tensor
    sums: Tensor
    log_probabilities: Tensor
    parents: Tensor
    bound: Tensor
    broken: Tensor

    @classmethod
    def root(cls, num_requests: int, device: torch.device | str) -> "Frontier":
        """One beam a request, at the root."""
        zeros = torch.zeros(num_requests, 1, device=device)
        index = torch.zeros(num_requests, 1, dtype=torch.int64, device=device)
        bound = torch.full((num_requests,), -torch.inf, device=device)
        return cls(index, zeros, zeros, index, bound, torch.zeros(num_requests, dtype=torch.bool, device=device))

    def first(self, num_requests: int) -> "Frontier":
        """The first so many requests."""
        parts = {part.name: getattr(self, part.name)[:num_requests] for part in fields(self)}
        return Frontier(**parts)

    def trimmed(self) -> "Frontier":
        """Without the places that are dead in every request. Asks the device how many, so it waits for it."""
        width = max(int((self.sums > -torch.inf).sum(dim=1).max()), 1)
        if width == self.nodes.shape[1]:
            return self
        return replace(
            self,
            nodes=self.nodes[:, :width],
            sums=self.sums[:, :width],
            log_probabilities=self.log_probabilities[:, :width],
            parents=self.parents[:, :width],
        )


def children_of(trie: DeviceTrie, level: int, frontier: Frontier, log_probs: Tensor, limits: Limits) -> Children:
    """Look the beams' children up, and which of them may be walked.

    Args:
        trie: the items.
        level: of the beams.
        frontier: the beams.
        log_probs: ``(R * W, C)`` of the level's tokens, from `Head.log_probs`.
        limits: what each request allows.
    """
    rows, width = frontier.nodes.shape
    first, past = trie.indptr[level].unfold(0, 2, 1)[frontier.nodes].unsqueeze(2).unbind(3)
    nodes = first + trie.places[level]
    alive = nodes < past
    nodes = nodes.clamp_(max=trie.num_nodes(level + 1) - 1).long()
    alive = limits.narrow(level, nodes, alive)
    columns = trie.column[level][nodes].long()
    return Children(nodes, alive, log_probs.view(rows, width, -1).gather(2, columns))


def select(frontier: Frontier, children: Children, num_beams: int) -> Frontier:
    """Keep the best `num_beams` children of each request, ties by node, and remember the best of the rest."""
    rows, _, most = children.nodes.shape
    log_probs = torch.where(children.alive, children.log_probs, -torch.inf)
    flat = (frontier.sums[:, :, None] + log_probs).view(rows, -1)
    keys = _ordered(flat, children.nodes.view(rows, -1))
    best = keys.topk(min(num_beams + 1, flat.shape[1]), dim=1).indices
    sums = flat.gather(1, best)
    bound = frontier.bound
    if best.shape[1] > num_beams:
        bound = torch.maximum(bound, sums[:, num_beams])
        best, sums = best[:, :num_beams], sums[:, :num_beams]
    # The model steps from dead beams too, and what it makes of them must be as finite as what it makes of living ones,
    # whose attention multiplies it by 0: so they are copies of the first.
    kept = torch.where(sums > -torch.inf, best, best[:, :1])
    parents = kept // most
    renormalised = log_probs.log_softmax(dim=2).view(rows, -1).gather(1, kept)
    return Frontier(
        nodes=children.nodes.view(rows, -1).gather(1, kept),
        sums=sums,
        log_probabilities=frontier.log_probabilities.gather(1, parents) + renormalised,
        parents=parents,
        bound=bound,
        broken=frontier.broken | flat.isnan().any(dim=1),
    )


def follow(frontier: Frontier, children: Children, parents: Tensor, places: Tensor) -> Frontier:
    """Keep the children that are named, whether or not a request may be answered with them.

    Args:
        frontier: the beams, none of them dead.
        children: theirs.
        parents: ``(R, W')`` int64, places of beams.
        places: ``(R, W')`` int64, which child of each parent.
    """
    rows, _, most = children.nodes.shape
    kept = parents * most + places
    log_probs = torch.where(children.alive, children.log_probs, -torch.inf)
    # Below a beam without a living child nothing is allowed: 0/0 means 0 here.
    renormalised = log_probs.log_softmax(dim=2).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    return Frontier(
        nodes=children.nodes.view(rows, -1).gather(1, kept),
        sums=frontier.sums.gather(1, parents) + children.log_probs.view(rows, -1).gather(1, kept),
        log_probabilities=frontier.log_probabilities.gather(1, parents) + renormalised.view(rows, -1).gather(1, kept),
        parents=parents,
        bound=frontier.bound,
        broken=frontier.broken | log_probs.flatten(1).isnan().any(dim=1),
    )


def _ordered(scores: Tensor, nodes: Tensor) -> Tensor:
    """``(R, n)`` int64 keys that order as the scores do, equal scores by node, the first one highest.

    `topk` leaves the order of equal values open (pytorch#127196), so the node becomes the low half of the key. The bits
    of a float order as integers once the negative ones are turned around.
    """
    bits = scores.view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (bits.long() << 32) | (_LOW_BITS - nodes)
