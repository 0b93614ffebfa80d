"""What docs/from-the-note.md says of the libraries themselves, seen to hold with those that are installed."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils.error import NoMatchingPeftModuleError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5ForConditionalGeneration,
    TrainingArguments,
)

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.engine import Query
from genrec.decoding.generate import GenerateEngine
from genrec.errors import BundleError
from genrec.models import load_model
from genrec.recommender import Recommender
from tests.fakes import tiny_model, tiny_tokenizer

SIZES = (4, 3)
IDS = torch.tensor([[4, 8, 5, 9]])
GENERATION_ONLY = ("max_new_tokens", "num_beams", "num_return_sequences", "output_scores", "early_stopping")


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    return tiny_tokenizer(SIZES)


@pytest.fixture
def t5(words: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model("seq2seq", len(words))


@pytest.fixture
def llama(words: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model("causal", len(words))


@pytest.fixture
def checkpoint(llama: PreTrainedModel, tmp_path: Path) -> Path:
    llama.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def trainer(model: PreTrainedModel, output: Path, **changes: Any) -> Seq2SeqTrainer:
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(output), report_to="none", use_cpu=True, max_steps=1, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    return Seq2SeqTrainer(model=model, args=arguments, **changes)


def lora(model: PreTrainedModel, **changes: Any) -> PeftModel:
    task = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(task_type=task, **changes)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # zero at first, so that nothing is changed yet
                parameter.normal_(0.0, 0.1)
    return adapted


# ---- tokens -----------------------------------------------------------------------------------------------------


def test_add_tokens_returns_how_many_are_new(words: PreTrainedTokenizerFast) -> None:
    before = len(words)
    assert words.add_tokens(["<c_0>", "<c_1>", "<c_0>", "<a_0>"]) == 2
    assert len(words) == before + 2


def test_add_tokens_counts_words_of_the_base_vocabulary_too(words: PreTrainedTokenizerFast) -> None:
    before = len(words)
    assert words.add_tokens(["<unk>", "<c_0>"]) == 2
    assert len(words) == before + 1


def test_a_config_with_the_new_vocabulary_size_does_not_load_the_old_weights(checkpoint: Path) -> None:
    config = AutoConfig.from_pretrained(checkpoint)
    config.vocab_size += 5
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(checkpoint, config=config)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_resizing_sets_the_vocabulary_size_and_by_default_makes_all_new_rows_alike(
    family: str, request: pytest.FixtureRequest
) -> None:
    model: PreTrainedModel = request.getfixturevalue(family)
    old = model.config.vocab_size
    model.resize_token_embeddings(old + 6)
    assert model.config.vocab_size == old + 6
    new = model.get_input_embeddings().weight[old:]
    assert torch.nn.functional.cosine_similarity(new[:1], new[1:]).min() > 0.999
    model.resize_token_embeddings(old + 12, mean_resizing=False)
    new = model.get_input_embeddings().weight[old + 6 :]
    assert torch.nn.functional.cosine_similarity(new[:1], new[1:]).min() < 0.9


# ---- LoRA -------------------------------------------------------------------------------------------------------


def test_what_lora_adds_is_scaled_by_alpha_over_r(llama: PreTrainedModel) -> None:
    hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    layer = lora(llama, r=2, lora_alpha=8, target_modules=["q_proj"]).base_model.model.model.layers[0].self_attn.q_proj
    branch = layer.lora_B["default"](layer.lora_A["default"](hidden))
    assert layer.scaling == {"default": 8 / 2}
    assert torch.allclose(layer(hidden) - layer.base_layer(hidden), 4 * branch, atol=1e-5)


@pytest.mark.parametrize(("family", "hit"), [("t5", {"q", "v"}), ("llama", {"q_proj", "v_proj"})])
def test_without_target_modules_the_family_decides(family: str, hit: set[str], request: pytest.FixtureRequest) -> None:
    model = lora(request.getfixturevalue(family))
    assert {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if hasattr(module, "lora_A")} == hit


@pytest.mark.parametrize("text", ["q,v", "q"])
def test_to_peft_a_string_is_a_pattern_for_whole_paths_and_no_list(t5: PreTrainedModel, text: str) -> None:
    with pytest.raises(NoMatchingPeftModuleError, match="not found in the base model"):
        lora(t5, target_modules=text)


def test_saving_the_shared_matrix_of_t5_trains_nothing(t5: PreTrainedModel) -> None:
    model = lora(t5, modules_to_save=["shared"])
    model(input_ids=IDS, labels=IDS).loss.backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    saved = [gradient for name, gradient in wanted.items() if "shared" in name]
    assert len(saved) == 1 and saved[0] is None
    assert any(gradient is not None for gradient in wanted.values())


def test_merging_gives_the_sum_of_both_branches_and_leaves_no_branch(llama: PreTrainedModel) -> None:
    adapted = lora(llama, r=2, lora_alpha=8, target_modules="all-linear")
    calls: list[str] = []

    def count(model: PreTrainedModel) -> int:
        calls.clear()
        hooks = [
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        ]
        model(input_ids=IDS)
        for hook in hooks:
            hook.remove()
        return len(calls)

    two_branches, products = adapted(input_ids=IDS).logits, count(adapted)
    merged = adapted.merge_and_unload()
    assert torch.allclose(merged(input_ids=IDS).logits, two_branches, atol=1e-4)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    adapted_layers = 2 * 7  # q, k, v, o, gate, up, down, in two layers; the head has no branch
    assert count(merged) == adapted_layers + 1
    assert products == 3 * adapted_layers + 1


def test_an_adapter_goes_back_on_the_class_it_was_trained_with(
    llama: PreTrainedModel, checkpoint: Path, tmp_path: Path
) -> None:
    lora(llama, r=2).save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoint), model_id=tmp_path / "adapter")
    assert torch.allclose(again.eval()(input_ids=IDS).logits, llama(input_ids=IDS).logits, atol=1e-5)
    with pytest.raises(AttributeError, match="prepare_inputs_for_generation"):
        PeftModel.from_pretrained(AutoModel.from_pretrained(checkpoint), model_id=tmp_path / "adapter")


# ---- data sets and models ---------------------------------------------------------------------------------------


def test_the_trainer_drops_every_key_that_forward_does_not_name(
    t5: PreTrainedModel, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="includes input_ids"):
        trainer(t5, tmp_path, train_dataset=[{"history": [4], "target": [8]}], processing_class=words).train()
    trainer(t5, tmp_path, train_dataset=[{"input_ids": [4], "labels": [8]}], processing_class=words).train()


def test_auto_model_has_no_head_and_cannot_generate(checkpoint: Path) -> None:
    assert AutoModel.from_pretrained(checkpoint).get_output_embeddings() is None
    assert not hasattr(AutoModel.from_pretrained(checkpoint), "generate")
    assert AutoModelForCausalLM.from_pretrained(checkpoint).get_output_embeddings() is not None


def test_the_forward_of_t5_has_lost_arguments_and_ignores_them_in_silence(t5: PreTrainedModel) -> None:
    named = inspect.signature(T5ForConditionalGeneration.forward).parameters
    kept = {
        "input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "encoder_outputs",
        "past_key_values", "inputs_embeds", "decoder_inputs_embeds", "labels", "use_cache",
    }  # fmt: skip
    lost = {
        "head_mask", "decoder_head_mask", "cross_attn_head_mask", "output_attentions", "output_hidden_states",
        "return_dict",
    }  # fmt: skip
    assert set(named) == kept | {"self", "kwargs"}
    assert not lost & set(named)
    plain = t5(input_ids=IDS, labels=IDS).logits
    assert torch.equal(t5(input_ids=IDS, labels=IDS, head_mask=torch.zeros(1, 2)).logits, plain)
    assert t5(input_ids=IDS, labels=IDS, output_hidden_states=True).encoder_hidden_states is not None  # still a kwarg


def test_an_input_that_t5_does_not_know_is_swallowed_by_forward_and_refused_by_generate(t5: PreTrainedModel) -> None:
    plain = t5.get_encoder()(input_ids=IDS).last_hidden_state
    assert torch.equal(t5.get_encoder()(input_ids=IDS, item_position_ids=IDS).last_hidden_state, plain)
    with pytest.raises(ValueError, match="item_position_ids"):
        t5.generate(input_ids=IDS, item_position_ids=IDS, max_new_tokens=2)


class Subclass(T5ForConditionalGeneration):
    """As in the note: further arguments of the constructor, and a weight of its own."""

    def __init__(self, config: Any, args: dict[str, int]) -> None:
        super().__init__(config)
        self.item_positions = torch.nn.Embedding(args["positions"], config.d_model)
        self.post_init()


def test_from_pretrained_hands_further_arguments_to_the_constructor(t5: PreTrainedModel, tmp_path: Path) -> None:
    Subclass(t5.config, {"positions": 7}).save_pretrained(tmp_path)
    again = Subclass.from_pretrained(tmp_path, {"positions": 7})
    assert again.item_positions.weight.shape == (7, 16)
    assert inspect.ismethod(Subclass.from_pretrained) and Subclass.from_pretrained.__self__ is Subclass


def test_a_subclass_is_not_served_as_the_plain_model_it_extends(t5: PreTrainedModel, tmp_path: Path) -> None:
    Subclass(t5.config, {"positions": 7}).save_pretrained(tmp_path)
    T5ForConditionalGeneration.from_pretrained(tmp_path)  # which says no more than a line in a log
    with pytest.raises(BundleError, match=r"unexpected weight 'item_positions.weight'"):
        load_model(tmp_path, "seq2seq")


# ---- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATION_ONLY)
def test_training_arguments_have_none_of_the_arguments_of_generate(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        TrainingArguments(output_dir="unused", **{name: 2})


def test_the_trainer_takes_a_processing_class_and_no_tokenizer(
    t5: PreTrainedModel, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="tokenizer"):
        trainer(t5, tmp_path, tokenizer=words)
    assert trainer(t5, tmp_path, processing_class=words).processing_class is words


def test_the_trainer_turns_the_cache_off_by_itself(t5: PreTrainedModel, tmp_path: Path) -> None:
    t5.config.use_cache = True
    trainer(t5, tmp_path)
    assert t5.config.use_cache is False


# ---- generate ---------------------------------------------------------------------------------------------------


def test_the_defaults_of_generate_are_those_of_the_page() -> None:
    defaults = GenerationConfig._get_default_generation_params()
    assert GenerationConfig().max_new_tokens is None
    assert (defaults["max_length"], defaults["num_beams"], defaults["num_return_sequences"]) == (20, 1, 1)
    assert not defaults["output_scores"] and not defaults["return_dict_in_generate"]
    assert defaults["early_stopping"] is False and defaults["length_penalty"] == 1.0


def test_no_new_tokens_is_an_error_and_no_limit_a_default_of_twenty(llama: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="max_new_tokens"):
        llama.generate(IDS, max_new_tokens=0)
    llama.generation_config = GenerationConfig(pad_token_id=0)
    with pytest.warns(UserWarning, match="default `max_length`"):
        found = llama.generate(IDS)
    assert found.shape[1] == IDS.shape[1] + 20


def test_more_sequences_than_beams_are_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="smaller or equal to `num_beams`"):
        llama.generate(IDS, max_new_tokens=2, num_beams=2, num_return_sequences=3)


def test_the_argument_has_an_s_and_without_it_generate_refuses_and_a_config_does_not(llama: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="num_return_sequence"):
        llama.generate(IDS, max_new_tokens=2, num_beams=2, num_return_sequence=2)
    assert GenerationConfig(num_beams=2, num_return_sequence=2).num_return_sequences is None


def test_scores_of_sequences_need_beams_and_both_switches(llama: PreTrainedModel) -> None:
    def ask(**switches: Any) -> Any:
        return llama.generate(IDS, max_new_tokens=2, num_beams=2, **switches)

    both = ask(output_scores=True, return_dict_in_generate=True)
    assert both.sequences_scores.shape == (1,)
    assert isinstance(ask(output_scores=True), torch.Tensor)
    assert ask(return_dict_in_generate=True).sequences_scores is None
    greedy = llama.generate(IDS, max_new_tokens=2, output_scores=True, return_dict_in_generate=True)
    assert "sequences_scores" not in greedy


@dataclass(frozen=True, eq=False)
class Stopping(GenerateEngine):
    """Our call of `generate` with another word on when to stop."""

    early_stopping: bool | str = True

    def _generation_config(self, num_beams: int) -> GenerationConfig:
        config = super()._generation_config(num_beams)
        config.early_stopping = self.early_stopping
        return config


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_at_a_fixed_length_early_stopping_changes_nothing(bundle_path: Path, length_penalty: float) -> None:
    bundle = Recommender.load(bundle_path, device="cpu").bundle
    queries = [
        Query(bundle.encoder.encode(rows), AllowedItems.all_but(rows, ItemMask.everything(len(bundle.catalog))))
        for rows in ([0, 1, 2], [7], [30, 4])
    ]
    prefix = bundle.manifest.decoder_prefix_ids
    found = [
        Stopping(bundle.model, bundle.trie, prefix, length_penalty, early_stopping=word).search(queries, 6)
        for word in (True, False, "never")
    ]
    for other in found[1:]:
        for beam, same in zip(found[0], other, strict=True):
            assert beam.rows.tolist() == same.rows.tolist()
            assert beam.scores.tolist() == same.scores.tolist()


def test_early_stopping_is_one_of_three_words(llama: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="must be a boolean or 'never'"):
        llama.generate(IDS, max_new_tokens=2, num_beams=2, early_stopping="sometimes")


@pytest.mark.parametrize(
    ("allowed", "outcome"),
    [(lambda query, ids: [], "returned an empty list"), (lambda query, ids: [4, 5], None)],
)
def test_the_callback_names_the_tokens_that_may_follow_and_must_name_one(
    llama: PreTrainedModel, allowed: Callable[[int, torch.Tensor], list[int]], outcome: str | None
) -> None:
    def ask() -> torch.Tensor:
        return llama.generate(IDS, max_new_tokens=3, num_beams=4, prefix_allowed_tokens_fn=allowed, eos_token_id=None)

    if outcome is None:
        assert set(ask()[0, IDS.shape[1] :].tolist()) <= {4, 5}
    else:
        with pytest.raises(ValueError, match=outcome):
            ask()


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_the_cache_changes_the_time_and_no_answer(family: str, request: pytest.FixtureRequest) -> None:
    model: PreTrainedModel = request.getfixturevalue(family)
    switches = {"max_new_tokens": 4, "num_beams": 3, "output_scores": True, "return_dict_in_generate": True}
    quick, slow = (model.generate(IDS, use_cache=cache, **switches) for cache in (True, False))
    assert torch.equal(quick.sequences, slow.sequences)
    assert torch.allclose(quick.sequences_scores, slow.sequences_scores, atol=1e-5)
