"""Residual k-means, and its control: random codes.

Knows vectors and seeds. Knows nothing of collisions. Shapes: N items, D dimensions, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from genrec.errors import DataError
from training.progress import Progress
from training.quantizer import CodeArray, Codes, FloatArray, ItemVectors


@dataclass(frozen=True, slots=True)
class ResidualKMeans:
    """k-means at every level on what the levels before leave over.

    Attributes:
        sizes: Codes a level.
        seed: Of the centroids, and of the items they are fitted on.
        fit_items: Fit on at most so many items; all are assigned.
        iterations: At most, a fit.
        restarts: Fits a level; the best is kept.
        progress: The display.
    """

    sizes: Sequence[int]
    seed: int
    fit_items: int
    iterations: int
    restarts: int
    progress: Progress

    def quantize(self, items: ItemVectors) -> Codes:
        """Assign codes.

        Raises:
            DataError: There are no vectors.
        """
        if not items.vectors.shape[1]:
            raise DataError('quantize.method = "residual_kmeans" needs vectors; list at least one part in embed.parts')
        residual = items.vectors.copy()
        columns, codebooks, notes = [], [], []
        with self.progress.task("k-means", total=len(self.sizes)) as advance:
            for level, size in enumerate(self.sizes):
                codebook, column = self._fit(residual, size, level)
                residual -= codebook[column]
                columns.append(column)
                codebooks.append(codebook)
                if len(codebook) < size:
                    notes.append(f"Level {level} has {len(codebook)} codes, not {size}: no more distinct vectors.")
                advance()
        left = float((residual**2).sum() / max(float((items.vectors**2).sum()), 1e-12))
        description = {"asked_sizes": list(self.sizes), "share_left_over": round(left, 4)}
        sizes = tuple(len(codebook) for codebook in codebooks)
        return Codes(np.stack(columns, axis=1), sizes, description, codebooks, notes)

    def _fit(self, residual: FloatArray, size: int, level: int) -> tuple[FloatArray, CodeArray]:
        """Centroids (size, D) and codes (N,) of one level; fewer centroids where there are fewer distinct vectors."""
        rng = np.random.default_rng((self.seed, level))
        sample = residual
        if len(residual) > self.fit_items:
            sample = residual[np.sort(rng.choice(len(residual), self.fit_items, replace=False))]
        # A size that the distinct vectors cannot fill is a warning of sklearn's and dead codes for us.
        size = min(size, len(np.unique(sample, axis=0)))
        model = KMeans(size, n_init=self.restarts, max_iter=self.iterations, random_state=int(rng.integers(2**31)))
        # Threads would add up in any order, and the last bit of a sum may move an item to another code.
        with threadpool_limits(limits=1):
            model.fit(sample)
            codes = model.predict(residual)
        return model.cluster_centers_.astype(np.float32), codes.astype(np.int32)


@dataclass(frozen=True, slots=True)
class RandomCodes:
    """Codes drawn at random: what semantic IDs are worth is measured against these.

    Attributes:
        sizes: Codes a level.
        seed: Of the draw.
    """

    sizes: Sequence[int]
    seed: int

    def quantize(self, items: ItemVectors) -> Codes:
        """Assign codes, uniformly and independently; the vectors are not looked at."""
        rng = np.random.default_rng(self.seed)
        columns = [rng.integers(size, size=len(items.item_ids), dtype=np.int32) for size in self.sizes]
        return Codes(np.stack(columns, axis=1), tuple(self.sizes), {})
