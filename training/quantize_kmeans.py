"""Residual k-means, and its control: random codes.

Knows vectors and seeds. Knows nothing of collisions. Shapes: N items, D dimensions, L levels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from genrec.errors import DataError
from training.codebooks import Codebooks, nearest
from training.embed_part import NOISE
from training.progress import Progress
from training.quantizer import CodeArray, Codes, FloatArray, ItemVectors


@dataclass(frozen=True, slots=True)
class KMeansFit:
    """How k-means is fitted, whatever it is fitted on.

    Attributes:
        seed: Of the centroids, and of the items they are fitted on.
        fit_items: Fit on at most so many.
        iterations: At most, a fit.
        restarts: Fits; the best is kept.
    """

    seed: int
    fit_items: int
    iterations: int
    restarts: int

    def centroids(self, points: npt.NDArray[np.floating], size: int, level: int) -> FloatArray:
        """(size, E) float32; fewer where there are fewer distinct points."""
        rng = np.random.default_rng((self.seed, level))
        sample = points.astype(np.float32)
        if len(points) > self.fit_items:
            sample = sample[np.sort(rng.choice(len(points), self.fit_items, replace=False))]
        # Points that differ by rounding noise alone are one point: no two codes shall stand for it.
        step = max(float(np.abs(sample).max(initial=0)) * NOISE, 1e-30)
        sample = (np.round(sample / step) * step).astype(np.float32)
        size = min(size, len(np.unique(sample, axis=0)))
        model = KMeans(size, n_init=self.restarts, max_iter=self.iterations, random_state=int(rng.integers(2**31)))
        # Threads would add up in any order, and the last bit of a sum may move an item to another code.
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # clusters without a point, which are dropped here
            model.fit(sample)
        centres: FloatArray = model.cluster_centers_[np.unique(model.labels_)].astype(np.float32)
        return centres


@dataclass(frozen=True, slots=True)
class ResidualKMeans:
    """k-means at every level on what the levels before leave over.

    Attributes:
        sizes: Codes a level.
        fit: How.
        progress: The display.
    """

    sizes: Sequence[int]
    fit: KMeansFit
    progress: Progress

    def quantize(self, items: ItemVectors) -> Codes:
        """Assign codes.

        Raises:
            DataError: There are no vectors.
        """
        require_vectors(items, "residual_kmeans")
        left = items.vectors.astype(np.float64)
        columns, levels = [], []
        with self.progress.task("k-means", total=len(self.sizes)) as advance:
            for level, size in enumerate(self.sizes):
                book = self.fit.centroids(left, size, level)
                columns.append(nearest(left, book))
                left -= book[columns[-1]]
                levels.append(book)
                advance()
        codes = np.stack(columns, axis=1)
        return codes_of_books(codes, Codebooks(tuple(levels)), self.sizes, items.vectors, left)


def require_vectors(items: ItemVectors, method: str) -> None:
    """Refuse to make codes of nothing.

    Raises:
        DataError: The recipe embeds nothing.
    """
    if not items.vectors.shape[1]:
        raise DataError(f'quantize.method = "{method}" needs vectors; list at least one part in embed.parts')


def codes_of_books(
    codes: CodeArray,
    codebooks: Codebooks,
    asked: Sequence[int],
    vectors: FloatArray,
    left: npt.NDArray[np.floating],
    **facts: object,
) -> Codes:
    """Codes with what every method says of them: the sizes asked for, and the share of the vectors that is left over.

    Args:
        codes: (N, L).
        codebooks: L levels.
        asked: Sizes of the recipe.
        vectors: (N, D).
        left: (N, D), the vectors less what the codes say of them.
        facts: What this method adds.
    """
    share = float((left**2).sum() / max(float((vectors.astype(np.float64) ** 2).sum()), 1e-12))
    notes = [
        f"Level {level} has {len(book)} codes, not {size}: no more distinct vectors."
        for level, (size, book) in enumerate(zip(asked, codebooks.levels, strict=True))
        if len(book) < size
    ]
    description = {"asked_sizes": list(asked), "share_left_over": round(share, 4), **facts}
    return Codes(codes, codebooks.sizes, description, codebooks, notes)


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
        return Codes(np.stack(columns, axis=1), tuple(self.sizes), {"seed": self.seed})
