"""What every part of an embedding gives, how parts are made comparable, and the reduction that two of them share.

Knows matrices. Knows nothing of where they come from. Shapes: N items, D dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

FloatArray = npt.NDArray[np.float32]

# Below this share of the largest, a singular value or a row's length is rounding noise, not a direction.
NOISE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part of the items' vectors.

    Attributes:
        vectors: (N, D) float32, not normalised; a zero row where an item gave nothing to go by.
        description: How it was made, for ``embedder.json``.
        tensors: What a new item's vector can be made with, for ``embedder.safetensors``.
    """

    vectors: FloatArray
    description: Mapping[str, object]
    tensors: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """How unit rows of a part are brought to the size of the others: centred, and spread over the same total variance.

    Unit length alone does not do it. Vectors of most pretrained encoders point one way: with a mean of length .9 they
    differ by a fifth of what centred ones do, and the other part would decide the codes.

    Attributes:
        mean: (D,) float32, of the rows.
        spread: Root of their mean squared distance from it; 0 where all are equal.
    """

    mean: FloatArray
    spread: float

    @classmethod
    def of(cls, vectors: FloatArray) -> "Standard":
        """Measure the rows that are not zero."""
        rows = vectors[vectors.any(axis=1)].astype(np.float64)
        if not len(rows):
            return cls(np.zeros(vectors.shape[1], dtype=np.float32), 0.0)
        mean = rows.mean(axis=0)
        spread = float(np.sqrt(((rows - mean) ** 2).sum(axis=1).mean()))
        return cls(mean.astype(np.float32), spread if spread > NOISE else 0.0)

    def apply(self, vectors: FloatArray, weight: float) -> FloatArray:
        """(N, D) float32 of mean zero and total variance ``weight ** 2``; a zero row stays zero, the middle."""
        filled = vectors.any(axis=1, keepdims=True)
        if not self.spread:
            return np.zeros_like(vectors)
        standard: FloatArray = np.where(filled, (vectors - self.mean) * (weight / self.spread), 0)
        return standard.astype(np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    """(N, D) rows of length 1; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows: FloatArray = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A sparse matrix in fewer dimensions.

    Attributes:
        vectors: (N, D) float32, left singular vectors times singular values to the asked power.
        components: (D, columns) float32, right singular vectors.
        kept: Share of the matrix's squared length that the D dimensions hold.
    """

    vectors: FloatArray
    components: FloatArray
    kept: float


def reduce(matrix: sparse.csr_matrix, dimensions: int, seed: int, power: float = 1.0) -> Reduced:
    """Truncated SVD; empty rows stay zero, and there are never more dimensions than the matrix has directions.

    Args:
        matrix: (N, columns), not all zero.
        dimensions: At most so many.
        seed: Of the randomised solver.
        power: Of the singular values in `vectors`.
    """
    wanted = min(dimensions, *matrix.shape)
    left, values, right = randomized_svd(matrix, n_components=wanted, n_iter=5, random_state=seed)
    real = values > values[0] * NOISE
    left, values, right = left[:, real], values[real], right[real]
    vectors = left * values**power
    lengths = np.linalg.norm(vectors, axis=1)
    vectors[(np.diff(matrix.indptr) == 0) | (lengths <= lengths.max() * NOISE)] = 0
    kept = float((values**2).sum() / matrix.multiply(matrix).sum())
    return Reduced(vectors.astype(np.float32), right.astype(np.float32), kept)
