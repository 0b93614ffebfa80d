"""Two processes under torchrun on the CPU: what a user with two accelerators starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genrec.recommender import Recommender
from tests.training.families import write_grown
from tests.training.runs import SHORT, ran
from tests.training.test_fitting import Run
from tests.training.two_processes import NUM_EXAMPLES, WAYS
from training.fit_report import read_curve

pytestmark = pytest.mark.system

# Every process notes what it writes, makes, renames or removes.
AUDIT = """
import os, sys

rank, work = os.environ.get("RANK"), os.environ["AUDIT_WORK"]
if rank is not None:
    log = os.open(os.environ["AUDIT_LOG"] + rank, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event, args):
        wrote = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (wrote or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")) and str(args[0]).startswith(work):
            os.write(log, f"{event} {args[0]}\\n".encode())

    sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, list[str]]]:
    """The work directory, what was said, and what each rank wrote there."""
    root = tmp_path_factory.mktemp("launched")
    (root / "sitecustomize.py").write_text(AUDIT)
    work = root / "work"
    environment = os.environ | {
        "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "AUDIT_WORK": str(work), "AUDIT_LOG": str(root / "rank"),
    }  # fmt: skip
    settings = [word for override in SHORT for word in ("--set", override)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    done = subprocess.run(
        [*launcher, "genrec", "train", "tiny-causal", *settings, "--work", str(work), "--output", str(root / "bundle")],
        env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    wrote = {rank: (root / f"rank{rank}").read_text().splitlines() for rank in "01"}
    return work, done.stdout + done.stderr, wrote


def test_each_stage_is_run_and_told_once(launched: tuple[Path, str, dict[str, list[str]]]) -> None:
    _, said, _ = launched
    assert ran(said.splitlines()) == [
        "prepare", "embed", "quantize", "vocabulary", "pretrain", "finetune", "merge", "assemble", "baselines",
        "evaluate", "seal",
    ]  # fmt: skip
    assert said.count("gradient proof: 18/18") == said.count("merge proof:") == 1
    assert said.count("pretrain: validation recall@10") == said.count("finetune: validation recall@10") == 1
    assert "Warning" not in said


def test_only_the_first_process_writes(launched: tuple[Path, str, dict[str, list[str]]]) -> None:
    _, _, wrote = launched
    assert any(line.startswith("os.rename") for line in wrote["0"])
    # but for the state of its generator, which each rank puts into the Trainer's checkpoints
    assert all(line.startswith("os.mkdir") and "/checkpoints/checkpoint-" in line for line in wrote["1"])


def test_the_result_has_the_form_of_one_that_a_single_process_made(
    launched: tuple[Path, str, dict[str, list[str]]],
) -> None:
    work, _, _ = launched
    for stage in ("pretrain", "finetune"):
        assert all(0 < point.validation_loss < 10 for point in read_curve(work / stage))
    fit = json.loads((work / "finetune" / "fit.json").read_text())
    assert fit["steps"] == 2  # two epochs of 240 windows, 120 a step to each of two processes
    assert {path.name for path in (work / "finetune").iterdir()} == {
        "adapter", "checkpoints", "fit.json", "probe.safetensors", "stage.json"
    }  # fmt: skip
    assert Recommender.load(work.parent / "bundle", device="cpu").bundle.manifest.name == "tiny-causal"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes of two processes that fitted tiny models together."""
    root = tmp_path_factory.mktemp("fitted")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    done = subprocess.run(
        [*launcher, "tests.training.two_processes", str(root)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def notes(root: Path, way: str) -> list[dict[str, object]]:
    return [json.loads((root / f"{way}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("way", WAYS)
def test_together_they_see_each_example_once_an_epoch_and_as_many_again_as_fill_the_last_batch(
    fitted: Path, way: str
) -> None:
    """27 examples are 4 rounds of 4 each for two: 32, of which 5 are seen a second time."""
    both = notes(fitted, way)
    for epoch in (0, 1):
        seen = [[index for when, batch in one["seen"] if when == epoch for index in batch] for one in both]
        assert len(seen[0]) == len(seen[1]) == 16
        assert sorted({*seen[0], *seen[1]}) == list(range(NUM_EXAMPLES))
        assert len(seen[0]) + len(seen[1]) - NUM_EXAMPLES == 5
    assert both[0]["curve"] == both[1]["curve"]


@pytest.mark.parametrize(("way", "steps"), [("plain", 3), ("smoothed", 1)])
def test_they_go_where_one_process_with_twice_the_batch_does(
    fitted: Path, tmp_path: Path, way: str, steps: int
) -> None:
    """Up to the last batch of an epoch, which is shorter for one process."""
    grown = write_grown("llama", tmp_path)
    _, alone = Run(grown, tmp_path / way, WAYS[way] | {"per_device_train_batch_size": 8, "max_steps": steps}).fit()
    together = notes(fitted, way)[0]["curve"]
    for name in ("validation_loss", "training_loss"):
        expected = [getattr(point, name) for point in alone.curve]
        assert [point[name] for point in together[:steps]] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_both_have_the_same_weights_in_the_end(fitted: Path, way: str) -> None:
    one, other = (load_file(fitted / f"{way}-{rank}.safetensors") for rank in (0, 1))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
