import json
import re
import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from genrec.errors import RecipeError
from genrec.models import load_model, load_tokenizer
from tests.training.bench import recipe
from tests.training.families import FAMILIES, LORA, SIZES, TIED, UNTIED, Grown, train, write_base, write_grown
from training.lora import adapted_modules, add_lora, load_adapter, summarise, target_modules, trainable_tokens
from training.merge import save_merged
from training.proof import GradientProof, Probe, prove_gradients
from training.recipe_model import Lora
from training.vocabulary import add_item_tokens, is_tied


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grown]:
    """A model of each family, its vocabulary grown by item tokens; load it, do not change it."""
    return {family: write_grown(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


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


@pytest.mark.parametrize(("family", "inputs"), [("llama", "embed_tokens"), ("t5-v1.1", "shared")])
def test_an_untied_model_trains_rows_on_both_sides(grown: dict[str, Grown], family: str, inputs: str) -> None:
    ids = grown[family].token_ids
    assert trainable_tokens(grown[family].load(), ids) == {inputs: ids, "lm_head": ids}


def rows_of(module: torch.nn.Module) -> torch.nn.Parameter:
    return module.token_adapter.trainable_tokens_delta["default"]


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
def test_encoder_and_decoder_of_a_t5_look_items_up_in_one_set_of_rows(
    grown: dict[str, Grown], family: str, tmp_path: Path
) -> None:
    model = add_lora(grown[family].load(), LORA, "seq2seq", grown[family].token_ids)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    for adapted in (model, load_adapter(grown[family].load(), tmp_path)):
        base = adapted.get_base_model()
        assert rows_of(base.encoder.embed_tokens) is rows_of(base.decoder.embed_tokens) is rows_of(base.shared)
        assert (rows_of(base.lm_head) is rows_of(base.shared)) == (family in TIED)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as stored:
        assert sum("trainable_tokens" in name for name in stored.keys()) == (1 if family in TIED else 2)  # noqa: SIM118


def test_a_loss_in_the_encoder_alone_and_one_in_the_decoder_alone_both_reach_the_shared_rows(
    grown: dict[str, Grown],
) -> None:
    model = add_lora(grown["t5-v1.1"].load(), LORA, "seq2seq", grown["t5-v1.1"].token_ids).eval()
    base, first = model.get_base_model(), grown["t5-v1.1"].token_ids[:1]
    for stack in (base.encoder, base.decoder):
        model.zero_grad()
        stack(input_ids=torch.tensor([first]), encoder_hidden_states=torch.ones(1, 1, 16)).last_hidden_state[
            0, 0, 0
        ].backward()
        assert rows_of(base.shared).grad[0].abs().max() > 0
        assert rows_of(base.lm_head).grad is None


@pytest.mark.parametrize("family", FAMILIES)
def test_only_lora_and_the_rows_of_item_tokens_are_trained(grown: dict[str, Grown], family: str) -> None:
    model = add_lora(grown[family].load(), LORA, grown[family].architecture, grown[family].token_ids)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in trained)
    rows = sum("trainable_tokens_delta" in name for name in trained)
    assert rows == (2 if family in UNTIED else 1)


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


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
def test_saving_the_matrix_of_a_t5_whole_trains_nothing_and_fails_the_proof(
    grown: dict[str, Grown], family: str
) -> None:
    lora = LORA.model_copy(update={"modules_to_save": ("shared",), "train_item_tokens": False})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT's, of a tied layer
        model = add_lora(grown[family].load(), lora, "seq2seq", grown[family].token_ids)
    proof = prove_gradients(model, grown[family].encoder, "seq2seq")
    assert proof == GradientProof(sum(SIZES), 0, 0)


def ties(model: PreTrainedModel) -> list[bool]:
    """Which matrices of a T5 are the one that all of it shares: encoder, decoder, head."""
    matrices = (model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head)
    return [matrix.weight.data_ptr() == model.shared.weight.data_ptr() for matrix in matrices]


VARIANTS: dict[str, dict[str, object]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "both": {"use_rslora": True, "use_dora": True, "lora_dropout": 0.1},
}


def adapt(grown: Grown, **changes: object) -> PeftModel:
    torch.manual_seed(0)
    return add_lora(grown.load(), LORA.model_copy(update=changes), grown.architecture, grown.token_ids)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_every_row_and_merges_into_the_model_it_was(
    grown: dict[str, Grown], family: str, variant: str, tmp_path: Path
) -> None:
    """The table of docs/training.md, row by row: gradients, the adapter alone, and merged, saved and reloaded."""
    one = grown[family]
    model = adapt(one, **VARIANTS[variant])
    tokens = sum(SIZES)
    assert prove_gradients(model, one.encoder, one.architecture) == GradientProof(tokens, tokens, tokens)
    train(model, one)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    probe = Probe.of(model, one.encoder, one.architecture)
    assert probe.difference(one.load()) > 0.1
    again = load_adapter(one.load(), tmp_path / "adapter")
    assert probe.difference(again) < 1e-6
    assert save_merged(again.merge_and_unload(), one.path, tmp_path / "model", one.architecture, probe) < 2e-5
    reloaded = load_model(tmp_path / "model", one.architecture)
    assert is_tied(reloaded) == (family in TIED)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["tie_word_embeddings"] == (family in TIED)
    if one.architecture == "seq2seq":
        assert ties(reloaded) == [True, True, family in TIED]


def test_the_variants_of_lora_are_models_of_their_own(grown: dict[str, Grown]) -> None:
    probes = []
    for changes in VARIANTS.values():
        model = adapt(grown["qwen3"], **{**changes, "lora_dropout": 0.0})
        train(model, grown["qwen3"])
        probes.append(Probe.of(model, grown["qwen3"].encoder, "causal").logits)
    assert all(not torch.allclose(one, other) for one, other in combinations(probes, 2))
    scales = {
        name: adapt(grown["qwen3"], **changes).get_base_model().model.layers[0].mlp.up_proj.scaling["default"]
        for name, changes in VARIANTS.items()
    }
    assert scales == pytest.approx({"lora": 4 / 2, "rslora": 4 / 2**0.5, "dora": 4 / 2, "both": 4 / 2**0.5})


def write_flan(path: Path, style: str) -> Path:
    """T5 v1.1 as the world has it: what stands in its config, and which matrices in its file."""
    write_base("t5-v1.1", path)
    if style == "every matrix":  # as Flan lies on the hub
        weights = load_file(path / "model.safetensors")
        for stack in ("encoder", "decoder"):
            weights[f"{stack}.embed_tokens.weight"] = weights["shared.weight"].clone()
        save_file(weights, path / "model.safetensors", {"format": "pt"})
    elif style == "version 5":
        AutoModelForSeq2SeqLM.from_pretrained(path).save_pretrained(path)
        config = json.loads((path / "config.json").read_text())
        assert (config["tie_word_embeddings"], config["scale_decoder_outputs"]) == (True, False)
    elif style == "version 5, honest":
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"scale_decoder_outputs": False}))
    return path


@pytest.mark.parametrize("style", ["version 4", "version 5", "version 5, honest", "every matrix"])
def test_however_a_t5_with_a_head_of_its_own_was_saved_it_is_the_same_model_and_is_trained(
    style: str, tmp_path: Path
) -> None:
    base = write_flan(tmp_path / "base", style)
    plain = write_base("t5-v1.1", tmp_path / "plain")
    flan = write_grown("t5-v1.1", tmp_path, base)
    reference = Probe.of(write_grown("t5-v1.1", tmp_path / "reference", plain).load(), flan.encoder, "seq2seq")
    assert reference.difference(flan.load()) == 0.0
    assert ties(load_model(base, "seq2seq")) == [True, True, False]
    model = adapt(flan)
    train(model, flan)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    probe = Probe.of(model, flan.encoder, "seq2seq")
    merged = load_adapter(flan.load(), tmp_path / "adapter").merge_and_unload()
    assert ties(merged) == [True, True, False]
    save_merged(merged, flan.path, tmp_path / "model", "seq2seq", probe)
    elsewhere = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert ties(elsewhere) == [True, True, False]
    assert probe.difference(elsewhere) < 1e-5
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["scale_decoder_outputs"]) == (False, False)


def test_a_t5_with_a_head_of_its_own_keeps_it_when_its_vocabulary_grows_once_more(grown: dict[str, Grown]) -> None:
    model, words = grown["t5-v1.1"].load(), load_tokenizer(grown["t5-v1.1"].path)
    before = [side.weight.detach().clone() for side in (model.shared, model.lm_head)]
    add_item_tokens(model, words, ["<d_0>", "<d_1>"])
    for old, side in zip(before, (model.shared, model.lm_head), strict=True):
        assert len(side.weight) == len(old) + 2
        assert torch.equal(side.weight[: len(old)], old)
    assert ties(model) == [True, True, False]


def test_the_task_type_follows_from_the_architecture_and_must_agree_where_it_is_named(grown: dict[str, Grown]) -> None:
    for family, right, wrong in (("t5", "SEQ_2_SEQ_LM", "CAUSAL_LM"), ("llama", "CAUSAL_LM", "SEQ_2_SEQ_LM")):
        one = grown[family]
        assert adapt(one).peft_config["default"].task_type == right
        model = {"architecture": one.architecture, "checkpoint": "somewhere"}
        assert recipe(model=model, finetune={"lora": {"task_type": right}}).finetune.lora.task_type == right
        with pytest.raises(ValueError, match=f'task_type = "{wrong}".*means "{right}"'):
            recipe(model=model, finetune={"lora": {"task_type": wrong}})


def test_modules_are_summed_up_by_their_last_name() -> None:
    assert summarise(["a.q", "b.q", "a.v"]) == "q ×2, v ×1"
