from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from genrec.errors import BundleError, TrainingError
from tests.training.families import FAMILIES, LORA, SIZES, TIED, Grown, train, write_grown
from training import lora, merge
from training.examples import Collator
from training.lora import load_adapter
from training.merge import save_merged
from training.proof import GradientProof, Probe, covering_rows, prove_gradients, proving_examples
from training.vocabulary import is_tied

TOKENS = sum(SIZES)


@pytest.fixture(scope="module", params=FAMILIES)
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A model of each family; load it, do not change it."""
    return write_grown(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return write_grown("llama", tmp_path_factory.mktemp("llama"))


def with_lora(grown: Grown, **changes: object) -> PeftModel:
    torch.manual_seed(0)
    return lora.add_lora(grown.load(), LORA.model_copy(update=changes), grown.architecture, grown.token_ids)


def test_a_few_items_use_every_token(grown: Grown) -> None:
    rows = covering_rows(grown.encoder.paths)
    assert len(rows) <= TOKENS
    assert np.array_equal(np.unique(grown.encoder.paths[rows]), np.unique(grown.encoder.paths))


def test_the_examples_of_the_proofs_show_every_token_to_the_model(grown: Grown) -> None:
    examples = proving_examples(grown.encoder, grown.architecture)
    shown = {token for index in range(len(examples)) for token in examples[index]["input_ids"]}
    assert shown >= set(grown.token_ids)


def test_with_lora_every_row_of_an_item_token_gets_a_gradient(grown: Grown) -> None:
    model = with_lora(grown)
    proof = prove_gradients(model, grown.encoder, grown.architecture)
    assert proof == GradientProof(TOKENS, TOKENS, TOKENS)
    proof.require()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_with_all_parameters_every_row_gets_a_gradient(grown: Grown) -> None:
    assert prove_gradients(grown.load(), grown.encoder, grown.architecture) == GradientProof(TOKENS, TOKENS, TOKENS)


def test_rows_that_are_frozen_are_found(grown: Grown) -> None:
    proof = prove_gradients(with_lora(grown, train_item_tokens=False), grown.encoder, grown.architecture)
    assert proof == GradientProof(TOKENS, 0, 0)
    with pytest.raises(TrainingError, match=f"0/{TOKENS} input and 0/{TOKENS} output rows.*train_item_tokens = true"):
        proof.require()


def test_a_frozen_head_is_found_when_only_the_embedding_of_an_untied_model_learns(
    llama: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "trainable_tokens", lambda model, ids: list(ids))
    proof = prove_gradients(with_lora(llama), llama.encoder, "causal")
    assert proof == GradientProof(TOKENS, TOKENS, 0)
    with pytest.raises(TrainingError):
        proof.require()


def test_a_single_row_without_a_gradient_is_found(llama: Grown) -> None:
    model = lora.add_lora(llama.load(), LORA, "causal", llama.token_ids[1:])
    proof = prove_gradients(model, llama.encoder, "causal")
    assert proof == GradientProof(TOKENS, TOKENS - 1, TOKENS - 1)
    with pytest.raises(TrainingError):
        proof.require()


@pytest.fixture(scope="module")
def trained(grown: Grown, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    """A trained adapter as `finetune` saves it, and the probe of the live model."""
    model = with_lora(grown)
    train(model, grown)
    path = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(path, save_embedding_layers=False)
    return path, Probe.of(model, grown.encoder, grown.architecture)


def merged_of(grown: Grown, adapter: Path) -> PreTrainedModel:
    return load_adapter(grown.load(), adapter).merge_and_unload()


def test_merged_saved_and_reloaded_it_is_the_model_that_was_trained(
    grown: Grown, trained: tuple[Path, Probe], tmp_path: Path
) -> None:
    adapter, probe = trained
    assert probe.difference(grown.load()) > 0.1
    probe.save(tmp_path / "probe.safetensors")
    merged = merged_of(grown, adapter)
    tied = is_tied(merged)
    difference = save_merged(
        merged, grown.path, tmp_path / "model", grown.architecture, Probe.load(tmp_path / "probe.safetensors")
    )
    assert difference <= 1e-5
    assert tied == (grown.family in TIED)
    assert not (tmp_path / "model" / "adapter_config.json").exists()


@pytest.mark.parametrize("token", range(TOKENS))
@torch.no_grad()
def test_any_row_that_is_lost_is_found(grown: Grown, trained: tuple[Path, Probe], token: int) -> None:
    adapter, probe = trained
    merged = merged_of(grown, adapter).eval()
    assert probe.require(merged) < 1e-5
    merged.get_input_embeddings().weight[grown.token_ids[token]] = 0
    with pytest.raises(TrainingError, match="differs from the live one"):
        probe.require(merged)


@torch.no_grad()
def _untie_and_change_head(model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight + 0.01)
    model.config.tie_word_embeddings = False


@torch.no_grad()
def _zero_a_row_of_the_head(model: PreTrainedModel) -> None:
    model.get_output_embeddings().weight[-2] = 0


@pytest.mark.parametrize("damage", [_untie_and_change_head, _zero_a_row_of_the_head])
def test_a_save_that_damages_the_head_is_found_after_reload(
    grown: Grown,
    trained: tuple[Path, Probe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[PreTrainedModel], None],
) -> None:
    adapter, probe = trained
    save = merge.save_checkpoint

    def damaging_save(model: PreTrainedModel, words: object, path: Path) -> None:
        damage(model)
        save(model, words, path)

    monkeypatch.setattr(merge, "save_checkpoint", damaging_save)
    with pytest.raises(TrainingError, match="differs from the live one"):
        save_merged(merged_of(grown, adapter), grown.path, tmp_path / "model", grown.architecture, probe)


def test_a_checkpoint_that_lacks_a_weight_after_the_save_is_refused(
    llama: Grown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would draw it at random, and say so in passing."""
    save = merge.save_checkpoint

    def forgetful_save(model: PreTrainedModel, words: object, path: Path) -> None:
        model.config.num_hidden_layers = 3
        save(model, words, path)

    monkeypatch.setattr(merge, "save_checkpoint", forgetful_save)
    probe = Probe.of(llama.load(), llama.encoder, "causal")
    with pytest.raises(BundleError, match="lacks weight"):
        save_merged(llama.load(), llama.path, tmp_path / "model", "causal", probe)


def test_a_model_of_another_vocabulary_is_not_compared(llama: Grown) -> None:
    probe = Probe.of(llama.load(), llama.encoder, "causal")
    wider = llama.load()
    wider.resize_token_embeddings(100, mean_resizing=False)
    with pytest.raises(TrainingError, match="gives logits"):
        probe.require(wider)


def test_a_model_of_nan_is_not_equal_to_anything(llama: Grown) -> None:
    probe = Probe.of(llama.load(), llama.encoder, "causal")
    broken = llama.load()
    with torch.no_grad():
        broken.lm_head.weight[3] = torch.nan
    with pytest.raises(TrainingError, match="nan in a logit"):
        probe.require(broken)


def test_the_probe_keeps_a_logit_for_each_labelled_token_alone(grown: Grown) -> None:
    probe = Probe.of(grown.load(), grown.encoder, grown.architecture)
    examples = proving_examples(grown.encoder, grown.architecture)
    rows = grown.load().get_input_embeddings().weight.shape[0]
    assert probe.logits.shape == (len(examples) * len(SIZES), rows)
    loss = torch.nn.functional.cross_entropy(
        probe.logits, torch.tensor([token for index in range(len(examples)) for token in examples[index]["labels"]
                                    if token >= 0])
    )  # fmt: skip
    batch = Collator()([examples[index] for index in range(len(examples))])
    assert loss.item() == pytest.approx(grown.load().eval()(**batch).loss.item(), abs=1e-5)
