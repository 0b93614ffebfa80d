"""A product is the same whether oneDNN does it from a packed copy or PyTorch from the modules' own weights."""

import copy
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.decoding import linear as linear_module
from genrec.decoding import packing, rms_norm
from genrec.decoding.engine import Query
from genrec.decoding.linear import Activation, DenseLinear, Linear, PackedLinear, linear
from genrec.decoding.padding import pad_prompts
from genrec.decoding.rms_norm import RmsNorm
from tests.genrec.decoding.small_models import (
    beam_engine,
    everything,
    found,
    prefix_of,
    prompts,
    random_trie,
    small_model,
)

needs_onednn = pytest.mark.skipif(
    not packing.packs(torch.zeros(1)), reason="this build of PyTorch has no packed products"
)
ACTIVATIONS: list[Activation] = ["relu", "gelu", "gelu_tanh", "silu"]


def modules(*outputs: int, bias: tuple[bool, ...] = (False,), inputs: int = 24) -> list[nn.Linear]:
    torch.manual_seed(0)
    kinds = bias * len(outputs) if len(bias) == 1 else bias
    return [nn.Linear(inputs, size, bias=has).requires_grad_(False) for size, has in zip(outputs, kinds, strict=True)]


@torch.inference_mode()
def outputs(made: Linear, x: Tensor, residual: Tensor) -> list[Tensor]:
    return [
        made(x),
        made.plus(x, residual),
        made.times(x, residual),
        *(made.activated(x, activation) for activation in ACTIVATIONS),
    ]


@needs_onednn
@pytest.mark.parametrize("rows", [1, 2, 20, 65])
@pytest.mark.parametrize("bias", [(False,), (True,), (True, False)])
def test_packed_and_dense_products_are_the_products_of_the_modules(rows: int, bias: tuple[bool, ...]) -> None:
    given = modules(16, 7, bias=bias)
    x, residual = torch.randn(rows, 24), torch.randn(rows, 23)
    plain = torch.cat([module(x) for module in given], dim=1)
    functions: list[Callable[[Tensor], Tensor]] = [
        nn.functional.relu, nn.functional.gelu, nn.GELU(approximate="tanh"), nn.functional.silu,
    ]  # fmt: skip
    expected = [plain, residual + plain, residual * plain, *(function(plain) for function in functions)]
    for made in (PackedLinear(given), DenseLinear(given)):
        for one, other in zip(outputs(made, x, residual), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_rows_need_not_lie_together_in_memory() -> None:
    made = PackedLinear(modules(16))
    x = torch.randn(5, 3, 24)
    torch.testing.assert_close(made(x[:, -1]), made(x[:, -1].contiguous()))


def test_stacked_modules_look_into_the_stack_and_stay_what_they_were() -> None:
    given = modules(16, 7, 9, bias=(True, False, True))
    x = torch.randn(5, 24)
    before = [module(x) for module in given]
    made = DenseLinear(given)
    for module, plain in zip(given, before, strict=True):
        torch.testing.assert_close(module(x), plain, rtol=0, atol=0)
        assert module.weight.untyped_storage().data_ptr() == made.weight.untyped_storage().data_ptr()


def test_one_module_is_not_copied() -> None:
    (given,) = modules(16)
    assert DenseLinear([given]).weight.data_ptr() == given.weight.data_ptr()


@needs_onednn
def test_only_float32_on_cpu_is_packed() -> None:
    (given,) = modules(16)
    assert isinstance(linear(given), PackedLinear)
    assert isinstance(linear(given.to(torch.bfloat16)), DenseLinear)
    assert isinstance(linear(given.to(dtype=torch.float32, device="meta")), DenseLinear)


@pytest.mark.parametrize("missing", ["library", "operator"])
def test_a_build_without_packed_products_multiplies_plainly(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "library":
        monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    else:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    (given,) = modules(16)
    assert isinstance(linear(given), DenseLinear)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (linear_module, rms_norm):
        monkeypatch.setattr(module, "packs", lambda weight: False)


@pytest.mark.parametrize("name", ["t5", "t5-gated", "llama", "llama-biases", "qwen3"])
def test_an_engine_answers_the_same_without_packed_products(name: str, request: pytest.FixtureRequest) -> None:
    model, trie = small_model(name, std=0.2), random_trie(100, (5, 6, 7))
    queries = [Query(prompt, everything(trie)) for prompt in prompts((3, 17), 22)]
    packed = beam_engine(model, trie).search(queries, 20)
    request.getfixturevalue("unpacked")
    for one, other in zip(packed, beam_engine(model, trie).search(queries, 20), strict=True):
        assert found(one).rows.tolist() == found(other).rows.tolist()
        np.testing.assert_allclose(found(one).scores, found(other).scores, atol=1e-5)


@pytest.mark.parametrize(("name", "packed"), list(product(["t5", "llama", "qwen2"], [True, False])))
@torch.inference_mode()
def test_an_engine_leaves_the_model_as_it_was(name: str, packed: bool, request: pytest.FixtureRequest) -> None:
    if not packed:
        request.getfixturevalue("unpacked")
    model, trie = small_model(name), random_trie(100, (5, 6, 7))
    padded = pad_prompts([[4, 5, 6]], left=False)
    inputs = {"input_ids": padded.ids, "attention_mask": padded.mask}
    if prefix_of(model):
        inputs["decoder_input_ids"] = torch.tensor([prefix_of(model)])
    weights = copy.deepcopy(model.state_dict())
    logits = model(**inputs).logits
    engine = beam_engine(model, trie)
    found(engine.search([Query([4, 5, 6], everything(trie))], 10)[0])
    torch.testing.assert_close(model(**inputs).logits, logits, rtol=0, atol=0)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


@pytest.mark.usefixtures("unpacked")
def test_weights_that_are_not_packed_are_shared_with_the_model() -> None:
    model, trie = small_model("llama"), random_trie(100, (5, 6, 7))
    query = Query([4, 5, 6], everything(trie))
    engine = beam_engine(model, trie)
    before = found(engine.search([query], 10)[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    after = found(engine.search([query], 10)[0])
    fresh = found(beam_engine(model, trie).search([query], 10)[0])
    assert not np.allclose(before.scores, after.scores, atol=1e-2)
    np.testing.assert_allclose(after.scores, fresh.scores, atol=1e-6)


@needs_onednn
def test_what_a_norm_leaves_over_is_done_by_the_product_that_follows() -> None:
    model = small_model("llama")
    layer = model.model.layers[0]
    norm = RmsNorm(layer.input_layernorm)
    made = linear(layer.self_attn.q_proj, after=norm)
    x = torch.randn(5, 32)
    with torch.inference_mode():
        torch.testing.assert_close(made(norm(x)), layer.self_attn.q_proj(layer.input_layernorm(x)))
