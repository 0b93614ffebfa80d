"""A model that is a table: the log-probabilities after every prefix, so that any case can be made and enumerated.

Shapes: R requests, W beams, V vocabulary, L levels, M models in one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genrec.decoding.beam import BeamEngine
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.limits import LimitTables
from genrec.decoding.padding import Padded
from genrec.trie import ItemTrie

VOCABULARY = 6


class TableHead:
    """Hidden states are log-probabilities already."""

    def __init__(self, levels: Sequence[Tensor]) -> None:
        self._levels = levels

    def log_probs(self, hidden: Tensor, level: int) -> Tensor:
        return hidden[:, self._levels[level]]


@dataclass
class TableProgress:
    models: Tensor  # (R, 1)
    prefixes: Tensor  # (R, W), base-V numbers
    level: int = 0

    def rewind(self) -> None:
        self.prefixes, self.level = torch.zeros_like(self.models), 0


class TableDecoder:
    """M models; the first token of a prompt says which one answers it."""

    def __init__(self, tables: Sequence[np.ndarray], levels: Sequence[Tensor]) -> None:
        """`tables[l]` is ``(M, V ** l, V)`` float32."""
        self._tables = [torch.from_numpy(table) for table in tables]
        self.head = TableHead(levels)

    def prefill(self, prompts: Padded, num_slots: int) -> tuple[TableProgress, Tensor]:
        models = prompts.ids[:, :1]
        progress = TableProgress(models, torch.zeros_like(models))
        return progress, self._tables[0][models, progress.prefixes].flatten(0, 1)

    def step(self, progress: TableProgress, tokens: Tensor, parents: Tensor) -> Tensor:
        progress.prefixes = progress.prefixes.gather(1, parents) * VOCABULARY + tokens
        progress.level += 1
        return self._tables[progress.level][progress.models, progress.prefixes].flatten(0, 1)


def random_tables(rng: np.random.Generator, num_models: int, num_levels: int, sharpness: float) -> list[np.ndarray]:
    """Distributions after every prefix; the sharper, the more of the mass has one token."""
    tables = []
    for level in range(num_levels):
        logits = rng.normal(0, sharpness, (num_models, VOCABULARY**level, VOCABULARY))
        logits -= logits.max(axis=2, keepdims=True)
        tables.append((logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))).astype(np.float32))
    return tables


def table_engine(tables: Sequence[np.ndarray], trie: ItemTrie, length_penalty: float = 1.0) -> BeamEngine:
    device = torch.device("cpu")
    on_device = DeviceTrie.of(trie, device)
    decoder = TableDecoder(tables, on_device.tokens)
    return BeamEngine(decoder, on_device, LimitTables(trie, device), device, length_penalty)  # type: ignore[arg-type]


def random_paths(rng: np.random.Generator, num_levels: int, num_items: int) -> np.ndarray:
    """Distinct sorted paths over the whole vocabulary, ``(N, L)`` int32."""
    flat = np.sort(rng.choice(VOCABULARY**num_levels, num_items, replace=False))
    return np.stack(np.unravel_index(flat, (VOCABULARY,) * num_levels), axis=1).astype(np.int32)


def path_terms(tables: Sequence[np.ndarray], model: int, paths: np.ndarray) -> np.ndarray:
    """``(N, L)`` float32: the log-probability of each token of each path."""
    prefix = np.zeros(len(paths), dtype=np.int64)
    terms = []
    for level, table in enumerate(tables):
        terms.append(table[model, prefix, paths[:, level]])
        prefix = prefix * VOCABULARY + paths[:, level]
    return np.stack(terms, axis=1)


def all_sums(tables: Sequence[np.ndarray], model: int, paths: np.ndarray) -> np.ndarray:
    """``(N,)`` float32: the summed log-probability of every path, by brute force, added up in order."""
    total = np.zeros(len(paths), dtype=np.float32)
    for term in path_terms(tables, model, paths).T:
        total += term
    return total
