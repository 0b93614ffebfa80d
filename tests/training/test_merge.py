import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from genrec.errors import InputError, RecipeError, TrainingError
from tests.training.runs import Run
from training import finetune, merge
from training.lora import load_adapter
from training.merge import adapter_directory
from training.proof import Probe
from training.vocabulary import is_tied, load_trainable


def kept(run: Run) -> list[str]:
    return sorted(path.name for path in (run.work / "finetune" / "checkpoints").iterdir())


def weights(directory: Path) -> bytes:
    return (directory / "model" / "model.safetensors").read_bytes()


def test_the_merged_model_is_plain_hugging_face(finished: Run) -> None:
    path = finished.work / "merge" / "model"
    auto = AutoModelForSeq2SeqLM if finished.architecture == "seq2seq" else AutoModelForCausalLM
    model, report = auto.from_pretrained(path, output_loading_info=True)
    assert not any(report.values())
    assert model.config.use_cache is True
    assert is_tied(model) == (finished.architecture == "seq2seq")
    assert len(AutoTokenizer.from_pretrained(path)) == model.config.vocab_size
    assert not list(path.glob("*adapter*")) and not list(path.glob("*.bin"))


def test_nothing_but_the_meaning_of_ids_is_left_in_its_generation_config(finished: Run) -> None:
    generation = json.loads((finished.work / "merge" / "model" / "generation_config.json").read_text())
    assert {name for name, value in generation.items() if value is not None} <= {
        "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "transformers_version",
        "_from_model_config",
    }  # fmt: skip
    assert generation["pad_token_id"] == 0


def test_a_kept_checkpoint_can_be_merged_in_place_of_the_best(finished: Run, tmp_path: Path) -> None:
    merged = {}
    for name in kept(finished):
        finished.stage(merge.STAGE, tmp_path / name, f"merge.checkpoint={name}")
        merged[name] = weights(tmp_path / name)
        model = load_trainable(tmp_path / name / "model", finished.architecture)
        base = load_trainable(finished.work / "pretrain" / "model", finished.architecture)
        adapter = load_adapter(base, finished.work / "finetune" / "checkpoints" / name)
        corpus = finished.corpus()
        assert Probe.of(adapter, corpus.encoder, corpus.architecture).difference(model) < 1e-5
    assert len(set(merged.values())) == 2
    assert weights(finished.work / "merge") in merged.values()


def test_a_checkpoint_that_was_not_kept_is_answered_with_those_that_were(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"checkpoint-777.*there are best, {', '.join(kept(finished))}"):
        finished.stage(merge.STAGE, tmp_path, "merge.checkpoint=checkpoint-777")
    assert adapter_directory(finished.work / "finetune", "best").name == "adapter"


def test_after_training_all_parameters_the_model_proves_itself_too_and_there_is_no_checkpoint_to_choose(
    finished: Run, tmp_path: Path
) -> None:
    run = finished.copy(tmp_path / "work", until="pretrain")
    full = 'finetune.method="full"'
    run.stage(finetune.STAGE, run.work / "finetune", full)
    progress = run.stage(merge.STAGE, tmp_path / "merged", full)
    assert "merge proof: merged, saved and reloaded, a logit differs by 0.0e+00" in progress.lines[-1]
    with pytest.raises(RecipeError, match=r"merge\.checkpoint"):
        run.stage(merge.STAGE, tmp_path / "other", full, "merge.checkpoint=checkpoint-2")


def test_an_adapter_that_is_not_the_one_that_was_trained_fails(finished: Run, tmp_path: Path) -> None:
    """The probe is of the live model at the end of its training, not of whatever lies on disk."""
    run = finished.copy(tmp_path / "work", until="finetune")
    best = weights(finished.work / "merge")
    for name in kept(run):
        finished.stage(merge.STAGE, tmp_path / name, f"merge.checkpoint={name}")
    (other,) = [name for name in kept(run) if weights(tmp_path / name) != best]
    adapter = run.work / "finetune" / "adapter" / "adapter_model.safetensors"
    adapter.write_bytes((run.work / "finetune" / "checkpoints" / other / adapter.name).read_bytes())
    with pytest.raises(TrainingError, match="differs from the live one"):
        run.stage(merge.STAGE, tmp_path / "merged")


def test_merging_leaves_the_old_vocabulary_of_the_base_alone(finished: Run) -> None:
    before = load_trainable(finished.work / "pretrain" / "model", finished.architecture)
    after = load_trainable(finished.work / "merge" / "model", finished.architecture)
    old, new = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    assert torch.equal(old[:4], new[:4])
    assert not torch.equal(old[4:], new[4:])
