from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from genrec.errors import RecipeError
from tests.training.families import Grown, write_grown
from training.dropout import residual_dropout

IDS = torch.tensor([[3, 44, 48, 51, 45, 49, 52]])


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return write_grown(request.param, tmp_path_factory.mktemp(request.param))


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits.detach()


def test_in_training_mode_every_pass_drops_something_else(grown: Grown) -> None:
    model = grown.load()
    with residual_dropout(model, 0.3):
        assert not torch.equal(logits(model), logits(model))


def test_an_evaluation_drops_nothing(grown: Grown) -> None:
    model = grown.load().eval()
    whole = logits(model)
    with residual_dropout(model, 0.3):
        assert torch.equal(logits(model), whole)


def test_afterwards_the_model_is_as_it_was(grown: Grown) -> None:
    model = grown.load()
    whole = logits(model)
    with residual_dropout(model, 0.3):
        pass
    assert torch.equal(logits(model), whole)


def test_input_attention_and_feed_forward_of_every_layer_are_dropped(grown: Grown) -> None:
    model = grown.load()
    with residual_dropout(model, 0.3):
        hooked = {name for name, module in model.named_modules() if module._forward_hooks}
    layers = {f"model.layers.{layer}.{part}" for layer in range(2) for part in ("self_attn", "mlp")}
    assert hooked == {"model.embed_tokens"} | layers


def test_it_reaches_through_an_adapter(grown: Grown) -> None:
    model = get_peft_model(grown.load(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    with residual_dropout(model, 0.3):
        assert not torch.equal(logits(model), logits(model))


def test_a_share_of_zero_asks_nothing_of_the_model(tmp_path: Path) -> None:
    model = write_grown("t5", tmp_path).load()
    with residual_dropout(model, 0.0):
        assert not any(module._forward_hooks for module in model.modules())


def test_a_model_of_unknown_layers_is_refused(tmp_path: Path) -> None:
    model = write_grown("t5", tmp_path).load()
    with pytest.raises(RecipeError, match=r"'t5'.*own config"), residual_dropout(model, 0.1):
        pass
