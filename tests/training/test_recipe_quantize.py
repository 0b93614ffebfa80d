import pytest
from pydantic import ValidationError

from tests.training.bench import recipe


def test_given_codes_bring_their_own_sizes() -> None:
    assert recipe().quantize.codebook_sizes == (64, 64)
    assert recipe(quantize={"method": "given", "given": {"path": "c.csv"}}).quantize.codebook_sizes is None
    with pytest.raises(ValidationError, match="read from the file"):
        recipe(quantize={"method": "given", "given": {"path": "c.csv"}, "codebook_sizes": [4, 4]})
    with pytest.raises(ValidationError, match="together or not at all"):
        recipe(quantize={"method": "given"})
    with pytest.raises(ValidationError, match="together or not at all"):
        recipe(quantize={"given": {"path": "c.csv"}})


def test_a_method_with_settings_has_its_defaults_and_no_other_table() -> None:
    made = recipe(quantize={"method": "rqvae"}).quantize
    assert made.rqvae is not None
    assert (made.product, made.balanced_kmeans, made.codebook_sizes) == (None, None, (64, 64))
    assert recipe(quantize={"method": "rqvae", "rqvae": {"latent": 8}}).quantize.rqvae.latent == 8  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match=r'\[quantize.rqvae\] is set but method is "residual_kmeans"'):
        recipe(quantize={"rqvae": {"latent": 8}})


@pytest.mark.parametrize("policy", ["reassign", "nearest"])
def test_codes_without_centroids_have_no_near_ones(policy: str) -> None:
    with pytest.raises(ValidationError, match="needs centroids"):
        recipe(quantize={"method": "random", "collisions": policy})
    assert recipe(quantize={"method": "product", "collisions": policy}).quantize.collisions == policy
