"""Item vectors from behaviour: which items stand near each other in training sequences.

Knows sequences of item rows. Knows nothing of text. Shapes: N items, n training interactions.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from genrec.errors import DataError
from training.embed_part import Part, reduce
from training.recipe_data import CollaborativePart
from training.sequences import Sequences

# Contexts count to this power, which keeps rare items from looking like everyone's best neighbour (Levy et al. 2015).
CONTEXT_POWER = 0.75


def collaborative(sequences: Sequences, part: CollaborativePart, seed: int) -> Part:
    """PPMI of windowed co-occurrence, reduced by an SVD. Reads the training split only.

    Raises:
        DataError: No user has two different training items.
    """
    counts = co_occurrence(sequences.training_sequences(), len(sequences.item_ids), part.window)
    if not counts.nnz:
        raise DataError('no user has two different training items, so embed.parts cannot hold "collaborative"')
    association = ppmi(counts)
    reduced = reduce(association, part.dimensions, seed, power=0.5)
    description = {"window": part.window, "pairs": int(counts.nnz), "kept": round(reduced.kept, 4)}
    return Part(reduced.vectors, description)


def co_occurrence(sequences: list[npt.NDArray[np.int32]], num_items: int, window: int) -> sparse.csr_matrix:
    """(N, N) symmetric float64: every pair of different items at most `window` apart counts 1/distance."""
    items = np.concatenate([*sequences, np.empty(0, dtype=np.int32)])
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    total = sparse.csr_matrix((num_items, num_items))
    for distance in range(1, window + 1):
        left, right = items[:-distance], items[distance:]
        together = (owner[:-distance] == owner[distance:]) & (left != right)
        weights = np.full(int(together.sum()), 1 / distance)
        pairs = sparse.coo_matrix((weights, (left[together], right[together])), shape=(num_items, num_items))
        total = total + pairs.tocsr()  # one distance at a time: memory follows distinct pairs, not all pairs
    return (total + total.T).tocsr()


def ppmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Positive pointwise mutual information of co-occurrence counts, in nats; pairs below zero vanish.

    A pair whose information is exactly zero vanishes too, unless nothing else is left: then the counts stand for it.
    """
    pairs = counts.tocoo()
    rows = np.asarray(counts.sum(axis=1)).ravel()
    contexts = rows**CONTEXT_POWER
    expected = rows[pairs.row] * contexts[pairs.col] / contexts.sum()
    information = np.maximum(np.log(pairs.data / expected), 0)
    result = sparse.csr_matrix((information, (pairs.row, pairs.col)), shape=counts.shape)
    result.eliminate_zeros()
    return result if result.nnz else counts
