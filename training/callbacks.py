"""What listens while the Trainer works: progress and recall, epochs, stops, checkpoints sealed and removed."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from genrec.errors import TrainingError
from training.checkpoints import PREFIX, all_checkpoints, scores_of, seal, step_of, superseded
from training.examples import Examples
from training.progress import Advance


@dataclass
class Epochs(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Tells the examples which epoch it is; accelerate does so only where a data loader's sampler cannot be told."""

    training: Examples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """A new epoch, or the rest of one."""
        self.training.set_epoch(int(state.epoch or 0))


@dataclass
class Monitor(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Shows progress, and measures the recall that a user would see.

    Attributes:
        recall: Of a model.
        open_task: Opens the display, given the number of steps.
        label: What is fitted.
    """

    recall: Callable[[PreTrainedModel], float]
    open_task: Callable[[int], Advance]
    label: str
    _advance: Advance = field(default=lambda steps=1, note="": None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Now it is known how many steps there are."""
        self._advance = self.open_task(state.max_steps)
        self._advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """One step further."""
        self._advance(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Show the training loss."""
        if logs and "loss" in logs:
            self._advance(0, f"loss {logs['loss']:.3f}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: PreTrainedModel,
        metrics: dict[str, float],
        **_: object,
    ) -> None:
        """Add the recall to the metrics, for early stopping, and to the log, for the curve."""
        if "eval_loss" not in metrics:
            return
        if not math.isfinite(metrics["eval_loss"]):
            raise TrainingError(
                f"{self.label}: validation loss is {metrics['eval_loss']} after step {state.global_step}; weights have "
                "run away, so take a smaller training_arguments.learning_rate."
            )
        with torch.inference_mode():
            recall = metrics["eval_recall"] = self.recall(model)
        state.log_history[-1]["eval_recall"] = recall
        self._advance(0, f"validation loss {metrics['eval_loss']:.3f}, recall@10 {recall:.3f}")


@dataclass
class Stopper(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Ends training after the step in which a stop was asked for, or at an epoch, with a checkpoint.

    Attributes:
        asked: Whether this process was told to stop.
        epoch: Where to stop, a fraction of one included; None to go on.
    """

    asked: Callable[[], bool]
    epoch: float | None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """A step is whole: weights, optimizer and generators belong together."""
        if self._all_asked(args, state) or (self.epoch is not None and (state.epoch or 0) >= self.epoch):
            control.should_save = control.should_training_stop = True

    def _all_asked(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Processes that train together must stop after the same step; they ask each other when they log."""
        if args.world_size == 1:
            return self.asked()
        if state.global_step % max(int(state.logging_steps), 1):
            return False
        asked = torch.tensor([float(self.asked())], device=args.device)
        torch.distributed.all_reduce(asked)
        return bool(asked.item())


@dataclass
class Keeper(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Seals each checkpoint, then removes those that neither a result nor a run that goes on could need.

    Attributes:
        output: Where checkpoints are.
        metric: What says how good one is.
        greater: Whether more of it is better.
        keep_best: So many of the best are kept.
        limit: So many in all, unless these are more; None keeps all.
    """

    output: Path
    metric: str
    greater: bool
    keep_best: int
    limit: int | None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """The Trainer has written one."""
        if args.world_size > 1:
            torch.distributed.barrier()  # each process writes the state of its generators
        if not state.is_world_process_zero:
            return
        seal(self.output / f"{PREFIX}{state.global_step}")
        if self.limit is not None:
            steps = [step_of(path) for path in all_checkpoints(self.output)]
            scores = scores_of(state.log_history, self.metric, self.greater)
            for step in superseded(steps, scores, keep_best=self.keep_best, limit=self.limit):
                shutil.rmtree(self.output / f"{PREFIX}{step}")
