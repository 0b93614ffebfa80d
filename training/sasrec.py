"""SASRec with full cross-entropy: the discriminative baseline that a generative model has to stand beside.

A causal transformer over item embeddings that scores the catalog with the same embeddings. Knows item rows and cases;
no semantic ID, no bundle. What is trained is measured and forgotten. Shapes: B sequences, T places, d dimensions,
N items, P places that have a target.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.errors import DataError
from genrec.models import resolve_device
from training.metrics import UNRANKED, Ranks, ndcg, recall
from training.progress import Progress
from training.recipe_model import SasRec
from training.sequences import EvaluationCase

ItemArray = npt.NDArray[np.int32]

LOGITS_AT_ONCE = 2**24
"""Bounds the logits that are held at once: 64 MiB of them, and as much again for each step of their gradient."""


@dataclass(frozen=True, eq=False)
class FittedSasRec:
    """A trained model, and how it came about.

    Attributes:
        model: In eval mode, with the weights of the best epoch.
        best_epoch: From 1.
        epochs: How many were trained.
        seconds: How long that took.
        validation_recall: Recall@10 of the best epoch.
        validation_ndcg: NDCG@10 of the best epoch, which chose it.
        negatives: How many items a step was scored against; none for the whole catalog.
    """

    model: "SasRecModel"
    best_epoch: int
    epochs: int
    seconds: float
    validation_recall: float
    validation_ndcg: float
    negatives: int | None


class _Block(nn.Module):
    """Causal attention and a feed-forward layer, each behind its norm and beside a residual."""

    def __init__(self, dimensions: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(dimensions), nn.LayerNorm(dimensions)
        self.query_key_value, self.out = nn.Linear(dimensions, 3 * dimensions), nn.Linear(dimensions, dimensions)
        self.feed = nn.Sequential(
            nn.Linear(dimensions, 4 * dimensions), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dimensions, dimensions)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d); `visible` is (B, 1, T, T), True where a place may look."""
        size = hidden.shape
        parts = self.query_key_value(self.attention_norm(hidden)).view(*size[:2], 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        dropped = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropped)
        hidden = hidden + self.drop(self.out(mixed.transpose(1, 2).reshape(size)))
        fed: Tensor = hidden + self.drop(self.feed(self.feed_norm(hidden)))
        return fed


class SasRecModel(nn.Module):
    """Items, padded on the left, to a hidden state a place; the last of them scores what comes next."""

    def __init__(self, num_items: int, settings: SasRec) -> None:
        super().__init__()
        self.max_history_items = settings.max_history_items
        self.items = nn.Embedding(num_items, settings.dimensions)
        self.places = nn.Embedding(settings.max_history_items, settings.dimensions)
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            _Block(settings.dimensions, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.dimensions)
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, items: Tensor, real: Tensor) -> Tensor:
        """(B, T) item rows and where they are real -> (B, T, d). The newest place has the last position, always."""
        length = items.shape[1]
        positions = torch.arange(self.max_history_items - length, self.max_history_items, device=items.device)
        hidden = self.drop(self.items(items) * math.sqrt(self.items.embedding_dim) + self.places(positions))
        causal = torch.ones(length, length, dtype=torch.bool, device=items.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=items.device)  # padding, which sees nothing else
        visible = (causal & real[:, None, :] | itself)[:, None]
        for block in self.blocks:
            hidden = block(hidden, visible)
        normed: Tensor = self.norm(hidden)
        return normed


def fit_sasrec(
    training: Sequence[ItemArray],
    validation: Sequence[EvaluationCase],
    num_items: int,
    settings: SasRec,
    seed: int,
    progress: Progress,
    device: str = "auto",
) -> FittedSasRec:
    """Train until NDCG@10 on validation has not grown for `patience` epochs; the best epoch's weights are kept.

    Args:
        training: Item rows of each user, oldest first.
        validation: Chooses the epoch.
        num_items: N.
        settings: Size of the model and how it is fitted.
        seed: Of weights, order, windows, dropout and negatives. The same seed gives the same model on a CPU.
        progress: The display.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        DataError: Nobody has two training items, or there is no validation to choose an epoch by.
    """
    if not validation or not any(len(sequence) > 1 for sequence in training):
        raise DataError(
            "SASRec needs users with two training items and a validation item to choose its epoch by; leave "
            "[evaluate.sasrec] out, or give [prepare] a split that has them"
        )
    where, started = torch.device(resolve_device(device)), time.monotonic()
    rng = np.random.default_rng(seed)
    negatives = None if num_items <= settings.full_softmax_items else settings.negatives
    best, best_epoch, epoch, weights = (-1.0, 0.0), 0, 0, {}
    with torch.random.fork_rng([where] if where.type == "cuda" else []), progress.task("sasrec") as advance:
        torch.manual_seed(seed)
        model = SasRecModel(num_items, settings).to(where)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
        for epoch in range(1, settings.epochs + 1):
            model.train()
            for batch in _batches(training, settings, rng):
                _step(model, optimizer, batch, negatives)
            ranks = sasrec_ranks(model, validation, num_items)
            reached = float(ndcg(ranks, 10).mean()), float(recall(ranks, 10).mean())
            advance(1, f"validation ndcg@10 {reached[0]:.4f} recall@10 {reached[1]:.4f}")
            if reached[0] > best[0]:
                best, best_epoch, weights = reached, epoch, copy.deepcopy(model.state_dict())
            if epoch - best_epoch >= settings.patience:
                break
    model.load_state_dict(weights)
    seconds = time.monotonic() - started
    return FittedSasRec(model.eval(), best_epoch, epoch, seconds, best[1], best[0], negatives)


@torch.inference_mode()
def sasrec_ranks(model: SasRecModel, cases: Sequence[EvaluationCase], num_items: int) -> Ranks:
    """Ranks each target among the items that its history lacks; one that was seen already is in no list.

    Args:
        model: Trained; left in eval mode.
        cases: Users to evaluate.
        num_items: N.

    Returns:
        One rank a case, equal scores tied.
    """
    model.eval()
    device = model.items.weight.device
    better = np.full(len(cases), UNRANKED, dtype=np.int64)
    tied = np.ones(len(cases), dtype=np.int64)
    size = max(1, LOGITS_AT_ONCE // num_items)
    for at in range(0, len(cases), size):
        batch = cases[at : at + size]
        items, real = _padded([case.history[-model.max_history_items :] for case in batch], device)
        scores = model(items, real)[:, -1] @ model.items.weight.T  # (B, N)
        targets = torch.tensor([case.target for case in batch], device=device)
        seen = torch.from_numpy(np.concatenate([case.history for case in batch])).long().to(device)
        users = torch.repeat_interleave(torch.tensor([len(case.history) for case in batch])).to(device)
        scores[users, seen] = -torch.inf
        own = scores.gather(1, targets[:, None])
        fresh = (own > -torch.inf).squeeze(1).cpu().numpy()  # the others were seen: in no list, as in `baselines`
        better[at : at + size][fresh] = (scores > own).sum(1).cpu().numpy()[fresh]
        tied[at : at + size][fresh] = (scores == own).sum(1).cpu().numpy()[fresh]
    return Ranks(better, tied)


def sampled_loss(states: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, num_items: int) -> Tensor:
    """Cross-entropy over the target and a uniform sample of other items that stands for all of them.

    Args:
        states: (P, d) hidden states.
        items: (N, d) embeddings.
        targets: (P,) item rows.
        negatives: (K,) distinct item rows; where one is the target it does not count.
        num_items: N. A sample of all items gives the full cross-entropy.

    Returns:
        The sum over places.
    """
    own = (states * items[targets]).sum(1, keepdim=True)
    accidental = negatives == targets[:, None]  # (P, K)
    # each of the sampled items stands for so many of the N - 1 that are not the target
    stands_for = torch.log((num_items - 1) / (~accidental).sum(1, keepdim=True).clamp(min=1))
    others = (states @ items[negatives].T + stands_for).masked_fill(accidental, -torch.inf)
    return -torch.cat([own, others], 1).log_softmax(1)[:, 0].sum()


def _step(model: SasRecModel, optimizer: torch.optim.Optimizer, batch: list[ItemArray], negatives: int | None) -> None:
    """One step of the optimizer. The loss is taken over some places at a time, which bounds the logits in memory."""
    device = model.items.weight.device
    items, real = _padded([window[:-1] for window in batch], device)
    followed, _ = _padded([window[1:] for window in batch], device)
    num_items = model.items.num_embeddings
    drawn = None if negatives is None else torch.randperm(num_items, device=device)[:negatives]
    states, targets = model(items, real)[real], followed[real]  # (P, d), (P,)
    leaf = states.detach().requires_grad_()
    optimizer.zero_grad()
    size = max(1, LOGITS_AT_ONCE // (negatives or num_items))
    for some, wanted in zip(torch.split(leaf, size), torch.split(targets, size), strict=True):
        if drawn is None:
            loss = functional.cross_entropy(some @ model.items.weight.T, wanted, reduction="sum")
        else:
            loss = sampled_loss(some, model.items.weight, wanted, drawn, num_items)
        torch.autograd.backward(loss / len(targets))
    torch.autograd.backward(states, leaf.grad)
    optimizer.step()


def _batches(training: Sequence[ItemArray], settings: SasRec, rng: np.random.Generator) -> Iterator[list[ItemArray]]:
    """Every training item as a target once an epoch: windows of like length together, batches in random order."""
    cut = [window for sequence in training for window in _windows(sequence, settings.max_history_items, rng)]
    order = np.argsort([len(window) + rng.random() for window in cut])
    starts = np.arange(0, len(order), settings.batch_size)
    for start in rng.permutation(starts):
        yield [cut[index] for index in order[start : start + settings.batch_size]]


def _windows(sequence: ItemArray, steps: int, rng: np.random.Generator) -> list[ItemArray]:
    """A history cut where each part has at most so many steps, elsewhere every epoch. The item at a cut is in both."""
    last = len(sequence) - 1
    cuts = [0, *(range(int(rng.integers(1, steps + 1)), last, steps) if last > steps else ()), last]
    return [sequence[start : end + 1] for start, end in pairwise(cuts) if end > start]


def _padded(sequences: Sequence[ItemArray], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) int64 item rows padded on the left with item 0, and (B, T) bool where they are real."""
    longest = max(map(len, sequences))
    items = np.zeros((len(sequences), longest), dtype=np.int64)
    real = np.zeros((len(sequences), longest), dtype=bool)
    for row, sequence in enumerate(sequences):
        items[row, longest - len(sequence) :] = sequence
        real[row, longest - len(sequence) :] = True
    return torch.from_numpy(items).to(device), torch.from_numpy(real).to(device)
