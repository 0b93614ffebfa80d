"""Training in real processes that are killed, stopped, and run out of disk: the next start ends in the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.training_process import Training
from tests.training.runs import SHORT
from training.fit_report import read_curve
from training.pipeline import read_record

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

# A checkpoint every two steps, lines of the log every three, dropout and hidden items: all that must be where it was.
STEPS = {
    "eval_strategy": '"steps"', "save_strategy": '"steps"', "eval_steps": 2, "save_steps": 2, "logging_steps": 3,
    "per_device_train_batch_size": 16,
}  # fmt: skip
SETTINGS = (
    *SHORT,
    *(
        f"{stage}.training_arguments.{name}={value}"
        for stage in ("pretrain", "finetune")
        for name, value in STEPS.items()
    ),
    "pretrain.mask_share=0.2",
    "finetune.lora.lora_dropout=0.2",
    "finetune.average_checkpoints=3",
    "finetune.training_arguments.num_train_epochs=1",
)


def command(work: Path, *more: str, until: str = "finetune") -> tuple[str, ...]:
    overrides = [word for override in (*SETTINGS, *more) for word in ("--set", override)]
    return (until, "tiny-causal", "--work", str(work), *overrides)


def results(work: Path) -> dict[str, object]:
    """What the two stages have left: every byte but where PEFT notes the path of the base model, and the curve."""
    return {
        f"{stage}/{name}": digest
        for stage in ("pretrain", "finetune")
        for name, digest in (read_record(work / stage).files | {"curve": read_curve(work / stage)}).items()
        if not name.endswith(("/README.md", "/adapter_config.json"))
    }


def copied(source: Path, target: Path) -> Path:
    """The stages before `pretrain`."""
    for stage in ("prepare", "embed", "quantize", "vocabulary"):
        shutil.copytree(source / stage, target / stage)
    return target


def appears(work: Path, pattern: str) -> Callable[[], bool]:
    return lambda: next(work.glob(pattern), None) is not None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a run that nothing happened to."""
    work = tmp_path_factory.mktemp("whole") / "work"
    training = Training.start(work.parent / "log", *command(work))
    assert training.end() == 0, training.said
    assert len(read_curve(work / "pretrain")) == len(read_curve(work / "finetune")) == 6
    return work


MOMENTS = [
    ".pretrain.partial/checkpoints/checkpoint-2",
    ".pretrain.partial/checkpoints/checkpoint-4/sealed.json",
    ".pretrain.partial/checkpoints/checkpoint-8/trainer_state.json",
    ".finetune.partial/checkpoints/checkpoint-2/sealed.json",
    ".finetune.partial/checkpoints/checkpoint-6",
    ".finetune.partial/adapter",
]


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    work = copied(whole, tmp_path / "work")
    for number, moment in enumerate(MOMENTS):
        training = Training.start(tmp_path / f"log-{number}", *command(work))
        assert training.signal_when(appears(work, moment), signal.SIGKILL) == -signal.SIGKILL
    training = Training.start(tmp_path / "log", *command(work))
    assert training.end() == 0
    assert "finetune: going on from checkpoint-" in training.said
    assert results(work) == results(whole)


def test_a_run_that_is_stopped_saves_its_step_and_ends_with_143(whole: Path, tmp_path: Path) -> None:
    work = copied(whole, tmp_path / "work")
    for stage in ("pretrain", "finetune"):
        training = Training.start(tmp_path / stage, *command(work))
        sealed = appears(work, f".{stage}.partial/checkpoints/checkpoint-{random.choice((2, 4, 6))}/sealed.json")
        assert training.signal_when(sealed, signal.SIGTERM) == 143
        assert f"{stage} was stopped by SIGTERM after step " in training.said
        assert "Traceback" not in training.said
    training = Training.start(tmp_path / "log", *command(work))
    assert training.end() == 0
    assert "finetune: going on from checkpoint-" in training.said
    assert results(work) == results(whole)


def test_outside_of_fitting_a_stop_is_at_once(tmp_path: Path) -> None:
    work = tmp_path / "work"
    training = Training.start(tmp_path / "log", *command(work))
    assert training.signal_when(appears(work, "prepare/stage.json"), signal.SIGTERM) == 143
    assert "stopped by SIGTERM; the same command goes on after the last stage that was finished." in training.said


@contextmanager
def small_disk(path: Path, size_mb: int) -> Iterator[bool]:
    """A file system of its own, if the tests may mount one."""
    path.mkdir()
    mounted = sys.platform == "linux" and os.getuid() == 0
    if mounted:
        told = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(path)], check=False)
        mounted = told.returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(whole: Path, tmp_path: Path, stage: str) -> None:
    with small_disk(tmp_path / "disk", 16) as mounted:
        if not mounted:
            pytest.skip("needs to mount a file system")
        work = copied(whole, tmp_path / "disk" / "work")
        if stage == "finetune":
            shutil.copytree(whole / "pretrain", work / "pretrain")
        free = shutil.disk_usage(work).free
        filler = tmp_path / "disk" / "filler"
        filler.write_bytes(bytes(free - 400_000))
        training = Training.start(tmp_path / "log", *command(work))
        assert training.end() == 74, training.said
        assert f"{stage}: nothing more can be written to {work}: it is full" in training.said
        assert "Traceback" not in training.said
        filler.unlink()
        training = Training.start(tmp_path / "again", *command(work))
        assert training.end() == 0, training.said
        assert results(work) == results(whole)


def test_a_limit_on_the_size_of_files_is_told_alike(whole: Path, tmp_path: Path) -> None:
    work = copied(whole, tmp_path / "work")
    training = Training.start(tmp_path / "log", *command(work), limit_bytes=40_000)
    assert training.end() == 74, training.said
    assert "pretrain: nothing more can be written to" in training.said and "too large" in training.said
    training = Training.start(tmp_path / "again", *command(work))
    assert training.end() == 0
    assert results(work) == results(whole)
