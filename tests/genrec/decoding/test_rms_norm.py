"""The norm is that of the module, of any size of input."""

import pytest
import torch

from genrec.decoding.rms_norm import RmsNorm
from tests.genrec.decoding.small_models import small_model


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("name", ["t5", "llama"])
def test_a_norm_is_the_modules(name: str, scale: float) -> None:
    model = small_model(name)
    module = model.encoder.final_layer_norm if name == "t5" else model.model.norm
    with torch.no_grad():
        module.weight.normal_(1.0, 0.5)
    norm = RmsNorm(module)
    x = scale * torch.randn(7, 32)
    with torch.inference_mode():
        expected = module(x)
        torch.testing.assert_close(norm.whole(x), expected, atol=1e-6, rtol=1e-5)
        rest = 1.0 if norm.left_over is None else norm.left_over
        torch.testing.assert_close(norm(x) * rest, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_does_not_become_a_number(value: float) -> None:
    norm = RmsNorm(small_model("llama").model.norm)
    x = torch.ones(2, 32)
    x[1, 3] = value
    for found in (norm(x), norm.whole(x)):
        assert found[0].isfinite().all()
        assert found[1].isnan().any()


def test_in_bfloat16_nothing_is_left_over() -> None:
    assert RmsNorm(small_model("llama", dtype=torch.bfloat16).model.norm).left_over is None
