from pathlib import Path

import pytest

from genrec.errors import InputError, RecipeError
from training.base_model import load_base
from training.recipe_model import Model


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_base(Model(checkpoint=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "no-such-model"},
        {"model_type": "t5"},
        {"model_type": "llama", "hidden_size": "wide"},
        {"model_type": "llama", "hidden_size": 30, "num_attention_heads": 7},
        {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "hiden_act": "x"},
    ],
    ids=["unknown", "wrong architecture", "wrong type", "heads do not divide", "misspelt"],
)
def test_a_config_that_makes_no_model_is_an_error_of_the_recipe(config: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=r"\[model.config\]"):
        load_base(Model(architecture="causal", config=config))


def test_a_misspelt_key_of_the_config_is_named_with_the_nearest() -> None:
    """transformers would take it for an attribute of a user's own, and build a model of the default size."""
    small = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(RecipeError, match=r"'hiden_act'.*nearest is 'hidden_act'"):
        load_base(Model(config={**small, "hiden_act": "silu"}))
    base, _ = load_base(Model(config={**small, "rope_theta": 500.0, "pad_token_id": 0}))
    assert base.config.rope_parameters["rope_theta"] == 500.0
