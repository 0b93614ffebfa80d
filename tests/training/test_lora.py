import re
from collections.abc import Sequence

import pytest

from genrec.errors import RecipeError
from tests.training.families import LORA, SIZES, TIED, TRAINABLE, Grown, write_grown
from training.lora import adapted_modules, add_lora, summarise, target_modules, trainable_tokens
from training.proof import GradientProof, prove_gradients
from training.recipe_model import Lora
from training.vocabulary import is_tied


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grown]:
    """A model of each family, its vocabulary grown by item tokens; load it, do not change it."""
    return {family: write_grown(family, tmp_path_factory.mktemp(family)) for family in (*TRAINABLE, "t5-v1.1")}


def adapted(grown: Grown, wanted: object) -> Sequence[str]:
    lora = Lora.model_validate({"r": 2, "lora_alpha": 4, "target_modules": wanted})
    return adapted_modules(add_lora(grown.load(), lora, grown.architecture, grown.token_ids))


def last_names(names: Sequence[str]) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in names}


@pytest.mark.parametrize(
    ("wanted", "hit"),
    [
        ("q_proj", {"q_proj"}),
        ("q_proj,v_proj", {"q_proj", "v_proj"}),
        ("q_proj, v_proj", {"q_proj", "v_proj"}),
        (["k_proj", "o_proj"], {"k_proj", "o_proj"}),
        (r".*\.mlp\.(up|down)_proj", {"up_proj", "down_proj"}),
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("default", {"q_proj", "v_proj"}),
    ],
)
def test_each_way_to_name_modules_hits_those_in_every_layer(
    grown: dict[str, Grown], wanted: object, hit: set[str]
) -> None:
    names = adapted(grown["llama"], wanted)
    assert last_names(names) == hit
    assert len(names) == 2 * len(hit)


@pytest.mark.parametrize(
    ("wanted", "hit", "count"),
    [
        ("q", {"q"}, 3),
        ("q,v", {"q", "v"}, 6),
        (r"encoder\.block\.\d+\.layer\.\d+\.SelfAttention\.(q|v)", {"q", "v"}, 2),
        ("all-linear", {"q", "k", "v", "o", "wi", "wo"}, 16),
        ("default", {"q", "v"}, 6),
    ],
)
def test_a_single_letter_is_a_module_of_t5_and_not_a_pattern(
    grown: dict[str, Grown], wanted: object, hit: set[str], count: int
) -> None:
    names = adapted(grown["t5"], wanted)
    assert last_names(names) == hit
    assert len(names) == count


def test_a_layer_is_named_by_its_whole_path(grown: dict[str, Grown]) -> None:
    assert adapted(grown["llama"], "model.layers.0.self_attn.q_proj") == ["model.layers.0.self_attn.q_proj"]


def test_only_one_name_in_a_list_is_a_name_and_not_a_pattern() -> None:
    assert target_modules("q") == ["q"]
    assert target_modules(("q", "v")) == ["q", "v"]
    assert target_modules("all-linear") == "all-linear"
    assert target_modules(".*q") == ".*q"
    assert target_modules("default") is None


@pytest.mark.parametrize("wanted", ["nothing", ["no", "thing"], r".*\.nothing"])
def test_modules_that_match_nothing_are_an_error_of_the_recipe(grown: dict[str, Grown], wanted: object) -> None:
    with pytest.raises(RecipeError, match=re.escape("finetune.lora") + ".*no.*thing"):
        adapted(grown["llama"], wanted)


@pytest.mark.parametrize("family", TIED)
def test_a_tied_model_trains_one_set_of_rows(grown: dict[str, Grown], family: str) -> None:
    ids = grown[family].token_ids
    assert trainable_tokens(grown[family].load(), ids) == ids


def test_an_untied_decoder_trains_rows_on_both_sides(grown: dict[str, Grown]) -> None:
    ids = grown["llama"].token_ids
    assert trainable_tokens(grown["llama"].load(), ids) == {"embed_tokens": ids, "lm_head": ids}


def test_t5_with_a_head_of_its_own_is_refused_with_a_way_out(grown: dict[str, Grown]) -> None:
    with pytest.raises(RecipeError, match=r'finetune.method = "full"'):
        add_lora(grown["t5-v1.1"].load(), LORA, "seq2seq", [44])


@pytest.mark.parametrize("family", TRAINABLE)
def test_only_lora_and_the_rows_of_item_tokens_are_trained(grown: dict[str, Grown], family: str) -> None:
    model = add_lora(grown[family].load(), LORA, grown[family].architecture, grown[family].token_ids)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in trained)
    rows = sum("trainable_tokens_delta" in name for name in trained)
    assert rows == (2 if family == "llama" else 1)


def test_modules_to_save_are_trained_whole(grown: dict[str, Grown]) -> None:
    lora = LORA.model_copy(update={"target_modules": "q_proj", "modules_to_save": ("gate_proj",)})
    model = add_lora(grown["llama"].load(), lora, "causal", grown["llama"].token_ids)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sum("modules_to_save" in name for name in trained) == 2


@pytest.mark.parametrize("family", ["llama", "qwen3", "t5"])
def test_saving_whole_what_item_tokens_train_by_rows_is_refused(grown: dict[str, Grown], family: str) -> None:
    name = "shared" if family == "t5" else "embed_tokens"
    lora = LORA.model_copy(update={"modules_to_save": (name,)})
    with pytest.raises(RecipeError, match="modules_to_save"):
        add_lora(grown[family].load(), lora, grown[family].architecture, grown[family].token_ids)


def test_a_whole_matrix_may_be_trained_in_place_of_rows_and_a_tied_one_stays_tied(grown: dict[str, Grown]) -> None:
    lora = LORA.model_copy(update={"modules_to_save": ("embed_tokens",), "train_item_tokens": False})
    model = add_lora(grown["qwen3"].load(), lora, "causal", grown["qwen3"].token_ids)
    assert prove_gradients(model, grown["qwen3"].encoder, "causal") == GradientProof(sum(SIZES), sum(SIZES), sum(SIZES))
    assert is_tied(model.merge_and_unload())


def test_modules_are_summed_up_by_their_last_name() -> None:
    assert summarise(["a.q", "b.q", "a.v"]) == "q ×2, v ×1"
