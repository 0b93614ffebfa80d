"""The Trainer's checkpoints on disk: which of them are whole, which one a run goes on from, which may go.

A checkpoint counts once it is sealed: its files are on the disk and their hashes are noted in it. Knows no Trainer.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from genrec.bundle.layout import sync, sync_tree
from training.fingerprint import tree_hashes, write_durably

SEAL = "sealed.json"
PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory that the Trainer wrote, sealed and unharmed.

    Attributes:
        path: The directory.
        state: What the Trainer noted of the run.
    """

    path: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps taken before it."""
        return step_of(self.path)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix(PREFIX))


def all_checkpoints(output: Path) -> list[Path]:
    """Every checkpoint directory, whole or not, oldest first."""
    return sorted(output.glob(f"{PREFIX}[0-9]*"), key=step_of)


def seal(checkpoint: Path) -> None:
    """Bring its files to the disk, then note their hashes in it."""
    (checkpoint / SEAL).unlink(missing_ok=True)
    sync_tree(checkpoint)
    write_durably(checkpoint / SEAL, json.dumps(tree_hashes(checkpoint), indent=1))
    sync(checkpoint.parent)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, for the user; None if its files are those that were sealed."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        found = tree_hashes(checkpoint, without=(SEAL,))
    except (OSError, ValueError):
        return "was not written to its end"
    changed = sorted(name for name in {*sealed, *found} if sealed.get(name) != found.get(name))
    return f"is damaged ({changed[0]} is not what was written)" if changed else None


def newest(output: Path) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, and a sentence for each newer one that was passed over.

    A checkpoint is of use if it is whole and the best one so far, which the run may end with, is whole too.
    """
    passed: list[str] = []
    for path in reversed(all_checkpoints(output)):
        wrong = damage(path)
        state = {} if wrong else json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        best = state.get("best_global_step")
        if wrong is None and best and best != step_of(path):
            wrong_best = damage(output / f"{PREFIX}{best}")
            wrong = wrong_best and f"needs {PREFIX}{best}, which {wrong_best}"
        if wrong is None:
            return Checkpoint(path, state), passed
        passed.append(f"{path.name} {wrong}")
    return None, passed


def remove_after(output: Path, step: int) -> None:
    """Remove checkpoints of later steps: damaged ones, which the run that goes on will write again."""
    for path in all_checkpoints(output):
        if step_of(path) > step:
            shutil.rmtree(path)


def superseded(steps: Sequence[int], scores: Mapping[int, float], *, keep_best: int, limit: int) -> list[int]:
    """Which checkpoints may go.

    Args:
        steps: Of the checkpoints, ascending.
        scores: Step -> how good, more is better; a step that was not evaluated is absent.
        keep_best: So many of the best are kept.
        limit: So many in all are kept if there are, newer ones first; the newest and the best whatever it says. One
            that was saved between two evaluations, because the run was stopped, makes room first.
    """
    kept = {steps[-1], *best_first(steps, scores)[:keep_best]}
    for step in reversed([step for step in steps if step in scores] or steps):
        if len(kept) >= limit:
            break
        kept.add(step)
    return [step for step in steps if step not in kept]


def best_first(steps: Sequence[int], scores: Mapping[int, float]) -> list[int]:
    """The steps that were evaluated, best first; of equals the earlier, as the Trainer has it."""
    return sorted((step for step in steps if step in scores), key=lambda step: (-scores[step], step))


def scores_of(log: Sequence[Mapping[str, float]], metric: str, greater_is_better: bool) -> dict[int, float]:
    """Step -> how good, more is better, from what the Trainer logged."""
    sign = 1.0 if greater_is_better else -1.0
    return {int(entry["step"]): sign * entry[metric] for entry in log if metric in entry}
