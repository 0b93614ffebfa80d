"""What a quantizer leaves behind: centroids a level, and the way of a vector to the nearest of them.

Codes of every method end here. Centroids of all levels lie in one space, and an item's code is the centroid nearest to
what the levels before leave over; for product quantisation that holds too, because there a level's centroids are zero
outside its own part of the space. Knows files of centroids. Knows neither items nor tokens nor how centroids are found.
Shapes: N items, D dimensions, E dimensions of the centroids' space, L levels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from genrec.errors import DataError, one_line

_Vectors = npt.NDArray[np.float32]
_Exact = npt.NDArray[np.float64]
_Codes = npt.NDArray[np.int32]

_CHUNK = 8192
"""Rows whose distances to a codebook are held at once: 134 MB at 2,048 codes."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A network from vectors to the space of the centroids: linear layers with ReLU between, on standardised input.

    Attributes:
        mean: (D,) float32, subtracted first.
        scale: (D,) float32, what is divided by then.
        weights: a layer each, (out, in) float32.
        biases: a layer each, (out,) float32.
    """

    mean: _Vectors
    scale: _Vectors
    weights: tuple[_Vectors, ...]
    biases: tuple[_Vectors, ...]

    def __call__(self, vectors: _Vectors) -> _Exact:
        """(N, D) -> (N, E) float64."""
        state = (vectors.astype(np.float64) - self.mean) / self.scale
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            state = (np.maximum(state, 0) if layer else state) @ weight.T.astype(np.float64) + bias
        return state


@dataclass(frozen=True, slots=True, eq=False)
class Codebooks:
    """Centroids of every level.

    Attributes:
        levels: L arrays (size, E) float32.
        encoder: From vectors to the centroids' space; None where that is the space of the vectors.
    """

    levels: tuple[_Vectors, ...]
    encoder: Encoder | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes a level."""
        return tuple(map(len, self.levels))

    @property
    def dimensions(self) -> int:
        """D, of the vectors that `encode` takes."""
        return len(self.encoder.mean) if self.encoder is not None else self.levels[0].shape[1]

    def encode(self, vectors: _Vectors) -> _Exact:
        """(N, D) float32 -> (N, E) float64, points of the centroids' space.

        Raises:
            DataError: The vectors have another number of dimensions than those that the codebooks were made of.
        """
        if vectors.shape[1] != self.dimensions:
            raise DataError(
                f"vectors of {vectors.shape[1]} dimensions cannot be quantized by codebooks made of "
                f"{self.dimensions}; embed the items with the embedder that was saved beside the codebooks"
            )
        return self.encoder(vectors) if self.encoder is not None else vectors.astype(np.float64)

    def assign(self, points: _Exact) -> _Codes:
        """(N, E) points -> (N, L) int32: level by level the nearest centroid of what is left over."""
        left = points.copy()
        codes = np.empty((len(points), len(self.levels)), dtype=np.int32)
        for level, book in enumerate(self.levels):
            codes[:, level] = nearest(left, book)
            left -= book[codes[:, level]]
        return codes

    def left_over(self, points: _Exact, codes: _Codes) -> _Exact:
        """(N, E): the points less the centroids of their first ``codes.shape[1]`` levels."""
        left = points.copy()
        for level in range(codes.shape[1]):
            left -= self.levels[level][codes[:, level]]
        return left

    def near_paths(self, point: _Exact, depth: int) -> Iterator[tuple[int, ...]]:
        """Codes of the first `depth` levels around one (E,) point, by the distance of what they stand for.

        They are found by a beam search, so a far one may come late or, among very many, never.
        """
        seen: set[tuple[int, ...]] = set()
        number = math.prod(self.sizes[:depth])
        for width in _WIDTHS:
            for path in self._beam(point, depth, width):
                if path not in seen:
                    seen.add(path)
                    yield path
            if width >= number:
                return

    def _beam(self, point: _Exact, depth: int, width: int) -> list[tuple[int, ...]]:
        paths, left = np.empty((1, 0), dtype=np.int32), point[None]
        for book in self.levels[:depth]:
            distances = squared_distances(left, book)
            best = np.argsort(distances, axis=None, kind="stable")[:width]
            beam, code = np.unravel_index(best, distances.shape)
            paths = np.concatenate([paths[beam], code[:, None].astype(np.int32)], axis=1)
            left = left[beam] - book[code]
        return [tuple(path) for path in paths.tolist()]

    def save(self, file: Path) -> None:
        """Write them as safetensors: ``codebook_{level}``, and ``encoder.…`` where there is an encoder."""
        tensors = {f"codebook_{level}": np.ascontiguousarray(book) for level, book in enumerate(self.levels)}
        if self.encoder is not None:
            tensors |= {"encoder.mean": self.encoder.mean, "encoder.scale": self.encoder.scale}
            tensors |= {f"encoder.weight_{layer}": weight for layer, weight in enumerate(self.encoder.weights)}
            tensors |= {f"encoder.bias_{layer}": bias for layer, bias in enumerate(self.encoder.biases)}
        save_file({name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}, file)

    @classmethod
    def load(cls, file: Path) -> "Codebooks":
        """Read what `save` wrote.

        Raises:
            DataError: The file is broken, or its arrays do not fit together.
        """
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{file} cannot be read as codebooks: {one_line(error)}") from error
        levels = tuple(_numbered(tensors, "codebook_"))
        encoder = None
        if "encoder.mean" in tensors and "encoder.scale" in tensors:
            weights, biases = (tuple(_numbered(tensors, f"encoder.{name}_")) for name in ("weight", "bias"))
            encoder = Encoder(tensors["encoder.mean"], tensors["encoder.scale"], weights, biases)
        fits = levels and all(book.ndim == 2 and book.shape[1] == levels[0].shape[1] for book in levels)
        if not fits or not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise DataError(f"{file} has no codebooks of one width with finite numbers; train again")
        return cls(levels, encoder)


_WIDTHS = (32, 512, 8192)
"""Of the beam that finds paths around a point: most items need the first path, few more than 32."""


def squared_distances(points: _Exact, centroids: npt.NDArray[np.floating]) -> _Exact:
    """(N, size) float64, from every point to every centroid."""
    exact = centroids.astype(np.float64)
    squares = (points**2).sum(axis=1)[:, None] - 2 * points @ exact.T + (exact**2).sum(axis=1)
    distances: _Exact = np.maximum(squares, 0)
    return distances


def nearest(points: _Exact, centroids: npt.NDArray[np.floating]) -> _Codes:
    """(N,) int32, the nearest centroid of each point; of equally near ones the first."""
    codes = np.empty(len(points), dtype=np.int32)
    for start in range(0, len(points), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        codes[chunk] = squared_distances(points[chunk], centroids).argmin(axis=1)
    return codes


def fit_to_codes(vectors: _Vectors, codes: _Codes, sizes: Sequence[int]) -> Codebooks:
    """Centroids for codes that came from elsewhere: level by level the mean of what is left over.

    A code without an item gets a centroid of zeros.

    Args:
        vectors: (N, D).
        codes: (N, L).
        sizes: Codes a level.
    """
    left = vectors.astype(np.float64)
    levels = []
    for level, size in enumerate(sizes):
        book = means(left, codes[:, level], size)
        left -= book[codes[:, level]]
        levels.append(book)
    return Codebooks(tuple(levels))


def means(points: _Exact, codes: _Codes, size: int) -> _Vectors:
    """(size, E) float32, the mean of the points of each code; zeros for a code without points."""
    sums = np.zeros((size, points.shape[1]))
    np.add.at(sums, codes, points)
    counts = np.bincount(codes, minlength=size)
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


def _numbered(tensors: dict[str, _Vectors], prefix: str) -> Iterator[_Vectors]:
    number = 0
    while (name := f"{prefix}{number}") in tensors:
        yield tensors[name]
        number += 1
