import numpy as np
import pytest
import torch

from genrec.errors import DataError
from tests.training.bench import RememberingProgress
from training import quantize_rqvae
from training.quantize_kmeans import KMeansFit
from training.quantize_rqvae import ResidualVae
from training.quantizer import Codes, ItemVectors


def clustered(count: int = 240, offset: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(24, 12))
    points = centres[rng.integers(24, size=count)] + rng.normal(0, 0.1, size=(count, 12))
    return (points * scale + offset).astype(np.float32)


def rqvae(vectors: np.ndarray, seed: int = 1, epochs: int = 40, sizes: tuple[int, ...] = (8, 8)) -> Codes:
    made = ResidualVae(
        sizes=sizes,
        hidden=(32,),
        latent=8,
        epochs=epochs,
        batch_size=64,
        learning_rate=3e-3,
        commitment=0.25,
        fit=KMeansFit(seed, 10_000, 20, 1),
        progress=RememberingProgress(),
    )
    return made.quantize(ItemVectors([f"i{row}" for row in range(len(vectors))], vectors))


def left_over(made: Codes) -> float:
    return float(made.description["share_left_over"])  # type: ignore[arg-type]


def test_codes_say_most_of_the_vectors_and_training_is_what_makes_them_do_so() -> None:
    trained, untrained = rqvae(clustered()), rqvae(clustered(), epochs=1)
    assert left_over(trained) < 0.35 < 0.7 < left_over(untrained)
    assert trained.codes.shape == (240, 2)
    assert trained.codes.dtype == np.int32
    assert (trained.codes < 8).all()
    assert len(np.unique(trained.codes[:, 0])) == 8


def test_a_seed_gives_the_same_bytes_and_the_global_generator_is_left_alone() -> None:
    made = []
    for state in (7, 8):
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        made.append(rqvae(clustered(), epochs=3))
        assert (torch.random.get_rng_state() == before).all()
    first, again = made
    other = rqvae(clustered(), seed=2, epochs=3)
    assert first.codebooks is not None
    assert again.codebooks is not None
    for left, right in zip(first.codebooks.levels, again.codebooks.levels, strict=True):
        assert (left == right).all()
    assert (first.codes == again.codes).all()
    assert (first.codes != other.codes).any()


def test_vectors_far_from_the_origin_and_tiny_are_as_good_as_any() -> None:
    made = rqvae(clustered(offset=5.0, scale=0.01))
    assert made.codebooks is not None
    assert len(np.unique(made.codes[:, 0])) == 8
    found = made.codebooks.assign(made.codebooks.encode(clustered(offset=5.0, scale=0.01)))
    assert (found == made.codes).all()
    plain = rqvae(clustered())
    assert abs(len(np.unique(made.codes, axis=0)) - len(np.unique(plain.codes, axis=0))) < 12


def test_codes_without_an_item_are_set_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered()

    def far_away(self: KMeansFit, points: np.ndarray, size: int, level: int) -> np.ndarray:
        book = np.full((size, points.shape[1]), 1e3, dtype=np.float32)
        book[0] = 0
        return book

    monkeypatch.setattr(KMeansFit, "centroids", far_away)
    made = rqvae(vectors)
    assert int(made.description["dead_codes_reset"]) >= 14  # type: ignore[call-overload]
    assert len(np.unique(made.codes[:, 0])) == 8
    monkeypatch.setattr(quantize_rqvae, "_reset_dead", lambda *_: 0)
    assert len(np.unique(rqvae(vectors).codes[:, 0])) == 1


def test_without_vectors_there_is_nothing_to_quantize() -> None:
    with pytest.raises(DataError, match=r'"rqvae" needs vectors'):
        rqvae(np.zeros((3, 0), dtype=np.float32))
