"""Product quantisation: the vector is cut into parts, and each level says what one part is.

Knows vectors. Knows nothing of collisions. Shapes: N items, D dimensions, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError
from training.codebooks import Codebooks
from training.progress import Progress
from training.quantize_kmeans import KMeansFit, codes_of_books, require_vectors
from training.quantizer import Codes, ItemVectors

_Basis = npt.NDArray[np.float64]

_LEAST = 1e-6
"""Share of the largest variance below which a direction counts as noise."""


@dataclass(frozen=True, slots=True)
class ProductKMeans:
    """k-means in L subspaces that together are the whole space; no level depends on another.

    Attributes:
        sizes: Codes a level.
        rotate: Whether the subspaces are chosen by the variance, or are consecutive dimensions.
        fit: How.
        progress: The display.
    """

    sizes: Sequence[int]
    rotate: bool
    fit: KMeansFit
    progress: Progress

    def quantize(self, items: ItemVectors) -> Codes:
        """Assign codes.

        Raises:
            DataError: There are no vectors, or fewer dimensions than levels.
        """
        require_vectors(items, "product")
        dimensions = items.vectors.shape[1]
        if dimensions < len(self.sizes):
            raise DataError(
                f'quantize.method = "product" cuts vectors into {len(self.sizes)} parts, but they have {dimensions} '
                "dimensions; use fewer quantize.codebook_sizes or larger vectors"
            )
        points = items.vectors.astype(np.float64)
        levels = []
        with self.progress.task("product quantisation", total=len(self.sizes)) as advance:
            for level, (size, basis) in enumerate(zip(self.sizes, self._bases(points), strict=True)):
                # Back in the whole space and zero outside the part: then codes are found as those of residual k-means.
                levels.append((self.fit.centroids(points @ basis, size, level) @ basis.T).astype(np.float32))
                advance()
        codebooks = Codebooks(tuple(levels))
        codes = codebooks.assign(points)
        return codes_of_books(codes, codebooks, self.sizes, items.vectors, codebooks.left_over(points, codes))

    def _bases(self, points: npt.NDArray[np.float64]) -> list[_Basis]:
        """L orthonormal bases (D, d) of subspaces; the d add up to D."""
        dimensions = points.shape[1]
        if not self.rotate:
            return np.array_split(np.eye(dimensions), len(self.sizes), axis=1)
        values, directions = np.linalg.eigh(np.cov(points, rowvar=False).reshape(dimensions, dimensions))
        return [directions[:, part] for part in allocate(values, len(self.sizes))]


def allocate(variances: npt.NDArray[np.float64], parts: int) -> list[list[int]]:
    """Directions for each part, so that the products of their variances are alike.

    Parametric optimised product quantisation (Ge et al. 2013): the largest variance left goes to the part whose product
    is the smallest and that is not full yet.

    Args:
        variances: (D,), D >= parts.
        parts: How many.
    """
    floor = max(float(variances.max()) * _LEAST, 1e-12)
    weights = np.log(np.maximum(variances, floor) / floor)
    room = ceil(len(variances) / parts)
    found: list[list[int]] = [[] for _ in range(parts)]
    totals = [0.0] * parts
    for direction in np.argsort(-variances, kind="stable").tolist():
        empty = [part for part in range(parts) if not found[part]]
        open_parts = empty or [part for part in range(parts) if len(found[part]) < room]
        part = min(open_parts, key=totals.__getitem__)
        found[part].append(direction)
        totals[part] += float(weights[direction])
    return found
