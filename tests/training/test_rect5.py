"""RecT5 in training: from a T5 without a jump, its embeddings learn under LoRA and in full, and survive merging."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genrec.errors import EngineError, InputError, RecipeError, TrainingError
from genrec.history import HistoryEncoder, Prompt
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import NO_INPUTS
from genrec.models import load_model
from genrec.rect5 import PLUGIN, RecT5Config, RecT5Encoder, RecT5ForConditionalGeneration
from tests.fakes import tiny_model
from tests.training.families import LORA, SIZES, base_of, write_base
from tests.training.test_import_checkpoint import Foreign, write_foreign
from training.base_model import load_base
from training.examples import Collator, LastItemExamples, MaskedExamples
from training.lora import add_lora
from training.merge import save_merged
from training.proof import MERGE_TOLERANCE, Probe, prove_gradients, proving_examples
from training.recipe_model import Model
from training.vocabulary import extend, is_tied, load_trainable, read_item_tokens_of, save_checkpoint, spread

NEW = ("item_positions", "meta_types")


def model_section(checkpoint: Path, **keys: object) -> Model:
    return Model.model_validate({"architecture": "seq2seq", "checkpoint": str(checkpoint), "plugin": "rect5", **keys})


class Grown:
    """A T5 read as RecT5 with item tokens, on disk, and items that use them all."""

    def __init__(self, root: Path) -> None:
        torch.manual_seed(1)
        model, words = load_base(model_section(write_base("t5", root / "t5")))
        spread(model, extend(model, words, SIZES))
        self.path = root / "grown"
        save_checkpoint(model, words, self.path)
        self.tokens: ItemTokens = read_item_tokens_of(words, SIZES)
        codes = np.stack(np.unravel_index(np.arange(int(np.prod(SIZES))), SIZES), axis=1).astype(np.int32)
        self.encoder = HistoryEncoder(Prompt(prefix_ids=(3,), max_history_items=5), self.tokens.paths(codes))
        self.inputs = PLUGIN.model_inputs(self.tokens)

    def batch(self) -> dict[str, torch.Tensor]:
        examples = proving_examples(self.encoder, "seq2seq")
        return Collator(self.inputs)([examples[index] for index in range(len(examples))])

    def model(self, method: str) -> torch.nn.Module:
        model = load_trainable(self.path, "seq2seq")
        return add_lora(model, LORA, "seq2seq", np.unique(self.encoder.paths).tolist()) if method == "lora" else model


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return Grown(tmp_path_factory.mktemp("rect5"))


@pytest.fixture
def t5_path(tmp_path: Path) -> Path:
    return write_base("t5", tmp_path / "t5")


def test_a_t5_read_as_rect5_gives_at_step_0_what_it_gave(t5_path: Path) -> None:
    plain, _ = base_of("t5", t5_path)
    rect5, _ = load_base(model_section(t5_path, config={"num_item_positions": 9}))
    assert type(rect5) is RecT5ForConditionalGeneration and rect5.config.num_item_positions == 9
    ids, labels = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 10]])
    told = {name: torch.tensor([[2, 2, 1, 1]]) for name in PLUGIN.inputs}
    assert torch.equal(rect5.eval()(ids, labels=labels, **told).logits, plain.eval()(ids, labels=labels).logits)


def test_a_checkpoint_of_the_family_needs_no_switch(grown: Grown) -> None:
    model, _ = load_base(Model(architecture="seq2seq", checkpoint=str(grown.path)))
    assert type(model) is RecT5ForConditionalGeneration


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_new_gets_a_gradient_and_is_trained(grown: Grown, method: str) -> None:
    model = grown.model(method)
    proof = prove_gradients(model, grown.encoder, "seq2seq", grown.inputs)
    proof.require()
    assert proof.silent_modules == ()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(any(f".{module}." in name for name in trained) for module in NEW)


class Forgetful(RecT5ForConditionalGeneration):
    """Its forward drops an input."""

    def forward(self, *args, item_position_ids=None, labels=None, **kwargs):  # type: ignore[no-untyped-def]
        return super().forward(*args, labels=labels, **kwargs)


def test_a_forward_that_drops_an_input_is_found_before_training(grown: Grown) -> None:
    model = Forgetful(load_model(grown.path, "seq2seq").config)
    proof = prove_gradients(model, grown.encoder, "seq2seq", grown.inputs)
    assert proof.silent_modules == ("item_positions",)
    with pytest.raises(TrainingError, match="module 'item_positions' of the plug-in got no gradient"):
        proof.require()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_was_trained_is_what_is_saved_and_its_matrices_are_still_one(
    grown: Grown, method: str, tmp_path: Path
) -> None:
    model = grown.model(method)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.05)
    for _ in range(4):
        model(**grown.batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    probe = Probe.of(model, grown.encoder, "seq2seq", grown.inputs)
    probe.save(tmp_path / "probe.safetensors")
    assert set(PLUGIN.inputs) <= Probe.load(tmp_path / "probe.safetensors").inputs.keys()
    merged = model.merge_and_unload() if method == "lora" else model
    assert save_merged(merged, grown.path, tmp_path / "merged", "seq2seq", probe) < 1e-5
    loaded = load_model(tmp_path / "merged", "seq2seq")
    assert type(loaded) is RecT5ForConditionalGeneration and is_tied(loaded)
    for module in NEW:
        weight = getattr(loaded.encoder, module).weight
        assert not weight[0].any() and weight[1].abs().min() > 0
    with torch.no_grad():
        loaded.encoder.item_positions.weight.zero_()
    assert probe.difference(loaded) > 10 * MERGE_TOLERANCE


def test_hidden_items_have_no_position_in_a_batch(grown: Grown) -> None:
    whole = LastItemExamples(grown.encoder, "seq2seq", [np.arange(6, dtype=np.int32)], [5])
    ids = np.unique(grown.encoder.paths).astype(np.int64)
    hidden = MaskedExamples(whole, ids, len(SIZES), share=0.5, mask_id=2, seed=3)
    [example] = [hidden[0]]
    batch = Collator(grown.inputs)([example])
    items = np.array(example["input_ids"][1:]).reshape(5, 3)
    seen = [place for place in range(5) if items[place][0] != 2]
    assert 0 < len(seen) < 5
    expected = [len(seen) - seen.index(place) if place in seen else 0 for place in range(5)]
    assert batch["item_position_ids"][0].tolist() == [0, *np.repeat(expected, 3).tolist()]
    assert batch["meta_type_ids"][0].tolist() == [
        0,
        *(kind for one in expected for kind in ([1, 2, 3] if one else [0] * 3)),
    ]


def test_a_model_is_not_trained_without_its_inputs(grown: Grown) -> None:
    with pytest.raises(EngineError, match="takes the extra inputs"):
        prove_gradients(grown.model("full"), grown.encoder, "seq2seq", NO_INPUTS)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"plugin": "rect6"}, r"model.plugin: model type 'rect6' is of neither"),
        ({"plugin": "t5"}, r"model.plugin = 't5' is of transformers and needs no plug-in"),
        ({"architecture": "causal"}, r'set model.architecture = "seq2seq"'),
        ({"config": {"num_item_position": 3}}, r"'num_item_position', .* num_meta_types; the nearest is 'num_item_p"),
        ({"config": {"d_model": 8}}, r"'d_model', and beside a checkpoint it may hold what rect5 adds"),
    ],
)
def test_a_recipe_that_reads_a_checkpoint_wrongly_is_told(
    t5_path: Path, keys: dict[str, object], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        load_base(model_section(t5_path, **keys))


@pytest.mark.parametrize("keys", [{"config": {"model_type": "rect5"}, "checkpoint": None}, {"checkpoint": "a.gguf"}])
def test_plugin_is_a_switch_for_checkpoints(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="plugin reads a checkpoint of another family"):
        Model.model_validate({"architecture": "seq2seq", "plugin": "rect5", **keys})


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    llama = write_base("llama", tmp_path / "llama")
    with pytest.raises(InputError, match="cannot be read as rect5: weight "):
        load_base(model_section(llama))


def test_a_config_of_a_family_that_nobody_has_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"\[model.config\]: model type 'm3rec' is of neither"):
        load_base(Model(architecture="seq2seq", config={"model_type": "m3rec"}))


def test_a_config_is_checked_with_the_keys_that_the_family_adds() -> None:
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    config = {"model_type": "rect5", **sizes, "num_item_positions": 7}
    model, _ = load_base(Model(architecture="seq2seq", config=config))
    assert model.encoder.item_positions.num_embeddings == 8
    with pytest.raises(
        RecipeError, match="'num_meta_type', which no rect5 config has; the nearest is 'num_meta_types'"
    ):
        load_base(Model(architecture="seq2seq", config={**config, "num_meta_type": 7}))


def test_an_imported_checkpoint_says_what_it_takes(tmp_path: Path) -> None:
    foreign: Foreign = write_foreign("seq2seq", tmp_path)
    t5 = tiny_model("seq2seq", 19)
    rect5 = RecT5ForConditionalGeneration(RecT5Config(**{**t5.config.to_dict(), "model_type": "rect5"}))
    rect5.load_state_dict(t5.state_dict(), strict=False)
    assert isinstance(rect5.encoder, RecT5Encoder)
    rect5.save_pretrained(foreign.folder / "hf")
    manifest, _ = foreign.imported()
    assert manifest.model_inputs == PLUGIN.inputs
