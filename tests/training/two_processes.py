"""What each of several processes does when a launcher starts this module: it fits tiny models and notes what it saw.

``-m tests.training.two_processes GROWN OUTPUT``: the base model and where notes go.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from tests.training.families import Grown
from tests.training.test_fitting import Run, weights
from training.batches import Batch
from training.examples import Examples, LastItemExamples
from training.processes import rank

QUICK = {
    "per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 0.02, "logging_steps": 3,
    "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1, "optim": "sgd",
    "lr_scheduler_type": "constant", "warmup_steps": 0,
}  # fmt: skip
WAYS = {
    "plain": QUICK,
    "grouped": QUICK | {"train_sampling_strategy": "group_by_length"},
    "smoothed": QUICK | {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
}
NUM_EXAMPLES = 27


class Noting(LastItemExamples):
    """Notes which examples of which epoch are fetched."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seen: list[tuple[int, list[int]]] = []

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        self.seen.append((self.epoch, list(indices)))
        return super().__getitems__(indices)


class NotingRun(Run):
    """A run that keeps its examples."""

    examples: Noting

    def training(self) -> Examples:
        plain = super().training()
        self.__dict__["examples"] = Noting(plain.encoder, plain.architecture, plain.sequences, plain.first_target)
        return self.examples


def main(grown: Grown, output: Path) -> None:
    """Fit in every way."""
    for name, arguments in WAYS.items():
        run = NotingRun(grown, output / name, arguments)
        model, result = run.fit()
        notes = {"seen": run.examples.seen, "curve": [asdict(point) for point in result.curve], "steps": result.steps}
        (output / f"{name}-{rank()}.json").write_text(json.dumps(notes))
        save_file(
            {key: weight.clone() for key, weight in weights(model).items()}, output / f"{name}-{rank()}.safetensors"
        )


if __name__ == "__main__":
    from tests.training.families import write_grown

    root = Path(sys.argv[1])
    main(write_grown("llama", root / f"grown-{rank()}"), root)
