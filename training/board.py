"""Event files for TensorBoard: losses, learning rate and recall over steps. Needs the package tensorboard.

Clock times are in them, so they lie beside the results of stages and not in one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TITLES = {
    "loss": "training/loss",
    "grad_norm": "training/gradient_norm",
    "learning_rate": "training/learning_rate",
    "training_loss": "evaluation/training_loss",
    "eval_loss": "evaluation/validation_loss",
    "eval_recall": "evaluation/recall_at_10",
}
"""What is shown, and under which name."""


class Board(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Writes what the Trainer logs; the first process alone.

    Attributes:
        directory: Where the event files go.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer: SummaryWriter | None = None
        self._written = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """A run that goes on replaces the points beyond its checkpoint."""
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.directory), purge_step=state.global_step + 1)
            self._written = len(state.log_history)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """What the step before has logged is complete now: callbacks add to an evaluation after it was logged."""
        self._write(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """The rest."""
        self._write(state)
        if self._writer is not None:
            self._writer.close()

    def _write(self, state: TrainerState) -> None:
        if self._writer is None or self._written == len(state.log_history):
            return
        for entry in state.log_history[self._written :]:
            self._write_entry(entry)
        self._written = len(state.log_history)
        self._writer.flush()

    def _write_entry(self, entry: Mapping[str, float]) -> None:
        for name, title in TITLES.items():
            if self._writer is not None and name in entry:
                self._writer.add_scalar(title, entry[name], int(entry["step"]))
