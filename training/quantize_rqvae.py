"""RQ-VAE: a network learns a space in which residual codes say as much of the vectors as they can.

Knows vectors and torch. Knows nothing of collisions. Shapes: B vectors of a batch, D dimensions, E latent dimensions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from training.codebooks import Codebooks, Encoder, nearest
from training.progress import Progress
from training.quantize_kmeans import KMeansFit, codes_of_books, require_vectors
from training.quantizer import Codes, FloatArray, ItemVectors

_RESET_SHARE = 0.9
"""Dead codes are set anew during this share of the epochs; what is set later would not be learnt any more."""


@dataclass(frozen=True, slots=True)
class ResidualVae:
    """Trains encoder, codebooks and decoder together. The same numbers every time, on a CPU with one thread.

    Against collapse, where a few codes do all the work: input of unit variance, codebooks that start as k-means of the
    first latents, and codes without an item that are set to what is left over of some item.

    Attributes:
        sizes: Codes a level.
        hidden: Widths of the encoder's layers, in reverse those of the decoder.
        latent: E.
        epochs: Passes over the items.
        batch_size: B.
        learning_rate: Of AdamW.
        commitment: Weight of the term that draws the encoder to the centroids.
        fit: How the first codebooks are fitted; its seed is that of the network too.
        progress: The display.
    """

    sizes: Sequence[int]
    hidden: Sequence[int]
    latent: int
    epochs: int
    batch_size: int
    learning_rate: float
    commitment: float
    fit: KMeansFit
    progress: Progress

    def quantize(self, items: ItemVectors) -> Codes:
        """Train, then assign codes.

        Raises:
            DataError: There are no vectors.
        """
        require_vectors(items, "rqvae")
        mean = items.vectors.mean(axis=0)
        spread = float(np.sqrt(((items.vectors - mean) ** 2).mean())) or 1.0
        scale = np.full(len(mean), spread, dtype=np.float32)
        inputs = torch.from_numpy((items.vectors - mean) / scale)
        with _reproducible(self.fit.seed):
            network = _Network(inputs.shape[1], self.hidden, self.latent)
            network.codebooks = self._first_codebooks(network, inputs)
            resets = self._train(network, inputs)
        weights, biases = network.encoder_layers()
        levels = tuple(book.detach().numpy() for book in network.codebooks)
        codebooks = Codebooks(levels, Encoder(mean, scale, weights, biases))
        points = codebooks.encode(items.vectors)
        codes = codebooks.assign(points)
        said = torch.from_numpy((points - codebooks.left_over(points, codes)).astype(np.float32))
        with torch.inference_mode():
            left = items.vectors - (network.decoder(said).numpy() * scale + mean)
        return codes_of_books(codes, codebooks, self.sizes, items.vectors, left, dead_codes_reset=resets)

    def _first_codebooks(self, network: "_Network", inputs: torch.Tensor) -> nn.ParameterList:
        """Residual k-means of what the untrained encoder gives."""
        with torch.no_grad():
            left = network.encoder(inputs).numpy().astype(np.float64)
        codebooks = nn.ParameterList()
        for level, size in enumerate(self.sizes):
            book = self.fit.centroids(left, size, level)
            left -= book[nearest(left, book)]
            codebooks.append(nn.Parameter(torch.from_numpy(book)))
        return codebooks

    def _train(self, network: "_Network", inputs: torch.Tensor) -> int:
        """Fit the network in place; how many dead codes were set anew."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=0.0)
        resets = 0
        with self.progress.task("RQ-VAE", total=self.epochs) as advance:
            for epoch in range(self.epochs):
                used = [torch.zeros(len(book), dtype=torch.bool) for book in network.codebooks]
                for rows in torch.split(torch.randperm(len(inputs)), self.batch_size):
                    step = network(inputs[rows])
                    loss = step.reconstruction + step.codebook + self.commitment * step.commitment
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    for level, codes in enumerate(step.codes):
                        used[level][codes] = True
                if epoch < self.epochs * _RESET_SHARE:
                    resets += _reset_dead(network, inputs, used)
                advance(note=f"loss {loss.item():.3f}")
        return resets


@dataclass(frozen=True, slots=True)
class _Step:
    """Losses of a batch, each a sum over dimensions and a mean over vectors, and the codes of each level (B,)."""

    reconstruction: torch.Tensor
    codebook: torch.Tensor
    commitment: torch.Tensor
    codes: list[torch.Tensor]


class _Network(nn.Module):
    def __init__(self, dimensions: int, hidden: Sequence[int], latent: int) -> None:
        super().__init__()
        widths = [dimensions, *hidden, latent]
        self.encoder = _layers(widths)
        self.decoder = _layers(widths[::-1])
        self.codebooks = nn.ParameterList()

    def forward(self, inputs: torch.Tensor) -> _Step:
        latents = self.encoder(inputs)
        left, said = latents, torch.zeros_like(latents)
        codebook_loss = commitment = latents.new_zeros(())
        codes = []
        for book in self.codebooks:
            chosen = torch.cdist(left.detach(), book.detach()).argmin(dim=1)
            centroid = book[chosen]
            codebook_loss = codebook_loss + _squared(centroid - left.detach())
            commitment = commitment + _squared(left - centroid.detach())
            said = said + centroid.detach()
            left = left - centroid.detach()
            codes.append(chosen)
        straight_through = latents + (said - latents).detach()
        return _Step(_squared(self.decoder(straight_through) - inputs), codebook_loss, commitment, codes)

    def encoder_layers(self) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
        """Weights and biases of the encoder, as `Encoder` takes them."""
        layers = [layer for layer in self.encoder if isinstance(layer, nn.Linear)]
        weights, biases = ([getattr(layer, name).detach().numpy() for layer in layers] for name in ("weight", "bias"))
        return tuple(weights), tuple(biases)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between."""
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [nn.ReLU(), nn.Linear(before, after)] if modules else [nn.Linear(before, after)]
    return nn.Sequential(*modules)


def _squared(difference: torch.Tensor) -> torch.Tensor:
    # A mean over dimensions would be hundreds of times smaller than the other terms and let codebooks collapse.
    return difference.square().sum(dim=1).mean()


@torch.no_grad()
def _reset_dead(network: _Network, inputs: torch.Tensor, used: Sequence[torch.Tensor]) -> int:
    """Set codes that no item had for an epoch to what is left over of random items; how many."""
    dead = [~level for level in used]
    count = int(sum(int(level.sum()) for level in dead))
    if not count:
        return 0
    rows = torch.randint(len(inputs), (max(int(level.sum()) for level in dead),))
    left = network.encoder(inputs[rows])
    for book, level in zip(network.codebooks, dead, strict=True):
        chosen = torch.cdist(left, book).argmin(dim=1)
        after = left - book[chosen]
        book[level] = left[: int(level.sum())]
        left = after
    return count


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """One thread and a seed of its own; both as they were afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
