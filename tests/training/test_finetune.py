import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training import finetune, pretrain
from training.fit_report import read_curve, read_recall
from training.stage import StageContext
from training.vocabulary import load_trainable


@pytest.fixture(scope="module")
def full(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage with all parameters trained."""
    out = tmp_path_factory.mktemp("full")
    finished.stage(finetune.STAGE, out, 'finetune.method="full"')
    return out


def content(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_the_adapter_holds_lora_and_the_rows_of_item_tokens_and_no_whole_matrix(finished: Run) -> None:
    adapter = load_file(finished.work / "finetune" / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name or "trainable_tokens" in name for name in adapter)
    rows = [tensor.shape[0] for name, tensor in adapter.items() if "trainable_tokens" in name]
    assert set(rows) == {len(np.unique(finished.corpus().encoder.paths))}  # spare codes are no item's
    assert len(rows) == (1 if finished.architecture == "seq2seq" else 2)


def test_nothing_that_is_pickled_is_left(finished: Run) -> None:
    for stage in ("pretrain", "finetune", "merge"):
        suffixes = {path.suffix for path in (finished.work / stage).rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".safetensors", ".md"}


def test_kept_checkpoints_hold_an_adapter_that_merge_can_take(finished: Run) -> None:
    kept = list((finished.work / "finetune" / "checkpoints").iterdir())
    assert len(kept) == 2
    assert all((path / "adapter_config.json").is_file() for path in kept)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_each_fitting_stage_notes_its_curve_and_what_it_reached(finished: Run, stage: str) -> None:
    curve = read_curve(finished.work / stage)
    assert len(curve) == (1 if stage == "pretrain" else 2)
    assert all(point.training_loss is not None and point.validation_loss > 0 for point in curve)
    recall = read_recall(finished.work / stage)
    assert recall is not None
    assert f"{stage}: validation recall@10 {recall:.4f} on 120 users" in finished.lines


def test_the_weights_that_are_kept_follow_from_the_seed_and_not_from_what_ran_before(
    finished: Run, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    finished.stage(finetune.STAGE, tmp_path)
    assert content(tmp_path / "adapter") == content(finished.work / "finetune" / "adapter")


def test_a_run_that_was_killed_while_it_wrote_its_result_goes_on(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "write_fit", killed)
        with pytest.raises(KeyboardInterrupt):
            finished.stage(finetune.STAGE, tmp_path)
    progress = finished.stage(finetune.STAGE, tmp_path)
    assert any("going on from" in line for line in progress.lines)
    found, expected = content(tmp_path), content(finished.work / "finetune")
    assert found == {name: digest for name, digest in expected.items() if name != "stage.json"}


def test_other_ranks_leave_the_writing_to_the_first(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (pretrain, finetune):
        monkeypatch.setattr(stage, "is_main", lambda: False)
        out = tmp_path / stage.STAGE.name
        finished.stage(stage.STAGE, out)
        assert [path.name for path in out.iterdir()] == ["checkpoints"]  # the Trainer's, which asks the launcher itself


def test_with_all_parameters_the_model_itself_is_the_result(finished: Run, full: Path) -> None:
    assert not (full / "adapter").exists()
    assert not (full / "checkpoints").exists()
    model = load_trainable(full / "model", finished.architecture)
    base = load_trainable(finished.work / "pretrain" / "model", finished.architecture)
    changed = [
        name
        for (name, before), after in zip(base.named_parameters(), model.parameters(), strict=True)
        if not torch.equal(before, after)
    ]
    assert len(changed) == len(list(base.parameters()))
    assert model.config.use_cache is False


def test_without_a_section_pretraining_passes_the_base_unchanged(finished: Run, tmp_path: Path) -> None:
    recipe = finished.recipe().model_copy(update={"pretrain": None})
    inputs = {name: finished.work / name for name in pretrain.STAGE.needs}
    pretrain.STAGE.run(StageContext(recipe, inputs, tmp_path, RememberingProgress()))
    assert content(tmp_path / "model") == content(finished.work / "vocabulary" / "model")
    assert read_curve(tmp_path) == ()
    assert read_recall(tmp_path) is None


def test_pretraining_trains_every_parameter(finished: Run) -> None:
    before = load_trainable(finished.work / "vocabulary" / "model", finished.architecture)
    after = load_trainable(finished.work / "pretrain" / "model", finished.architecture)
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(old, new), name


EVERYTHING = (
    "finetune.tensorboard=true",
    "finetune.average_checkpoints=2",
    "finetune.early_stopping_on=recall",
    "finetune.pad_to_multiple_of=8",
    "finetune.training_arguments.bf16=true",
    "finetune.training_arguments.gradient_checkpointing=true",
    "finetune.training_arguments.gradient_accumulation_steps=2",
    "finetune.training_arguments.per_device_train_batch_size=30",
    "finetune.training_arguments.train_sampling_strategy=group_by_length",
    "finetune.training_arguments.label_smoothing_factor=0.1",
)


def test_with_every_switch_of_the_recipe_at_once_the_merge_proof_holds(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "work", until="pretrain")
    assert run.again(*EVERYTHING, until="merge") == ["finetune", "merge"]
    assert list((run.work / "tensorboard" / "finetune").glob("events.*"))
    losses = [point.training_loss for point in read_curve(run.work / "finetune")]
    assert losses[-1] < losses[0]


def test_to_watch_a_run_trains_nothing_again(finished: Run) -> None:
    assert finished.again("finetune.tensorboard=true", "pretrain.tensorboard=true", until="merge") == []
