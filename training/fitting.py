"""Fitting weights with Hugging Face's Trainer: arguments, early stopping on validation, the curve of a run.

Knows neither LoRA nor stages: it is given a model and examples.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from genrec.errors import RecipeError, one_line
from genrec.models import Architecture
from training.examples import Collator, Examples
from training.processes import world_size
from training.progress import Advance, Progress
from training.recipe_model import Fitting

# What the stage itself decides; a recipe that sets one of these contradicts another of its keys.
_OURS = {
    "output_dir", "seed", "remove_unused_columns", "disable_tqdm", "report_to", "push_to_hub", "do_train",
    "resume_from_checkpoint", "restore_callback_states_from_checkpoint",
}  # fmt: skip

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)

_DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,  # below 1: a share of all steps
    "weight_decay": 0.01,
    "num_train_epochs": 10.0,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_steps": 10,
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "dataloader_pin_memory": False,
    "ddp_find_unused_parameters": False,  # there are none, and looking costs a walk over the graph every step
}


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was known at one evaluation."""

    step: int
    epoch: float
    training_loss: float | None
    validation_loss: float
    validation_recall: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A finished run.

    Attributes:
        steps: optimizer steps taken.
        best_step: the step whose weights the model has now.
        curve: one point an evaluation.
    """

    steps: int
    best_step: int
    curve: tuple[CurvePoint, ...]


def fit(
    model: PreTrainedModel,
    architecture: Architecture,
    training: Examples,
    validation: Examples,
    *,
    settings: Fitting,
    seed: int,
    output: Path,
    recall: Callable[[PreTrainedModel], float],
    progress: Progress,
    label: str,
) -> Fit:
    """Train `model` in place and leave it with its best weights on validation.

    Args:
        recall: Recall@10 of a model on validation users, asked at each evaluation.
        output: checkpoints go here; a run that was killed goes on from the newest.
        label: what the progress display calls it.

    Raises:
        RecipeError: a training argument is unknown or contradicts the stage.
    """
    trainer_class = Seq2SeqTrainer if architecture == "seq2seq" else Trainer
    output = output.resolve()  # checkpoints note the path of the best one, which a run from elsewhere must find
    with ExitStack() as display:
        trainer = trainer_class(
            model=model,
            args=training_arguments(architecture, settings, output=output, seed=seed),
            train_dataset=training,
            eval_dataset=validation,
            data_collator=Collator(),
            callbacks=[
                Epochs(training),
                Monitor(recall, lambda total: display.enter_context(progress.task(label, total))),
                EarlyStoppingCallback(settings.early_stopping_patience),
            ],
        )
        if architecture == "seq2seq":
            # T5 takes num_items_in_batch and ignores it; believed, its mean loss would be multiplied by the processes
            # and not divided by the accumulation steps.
            trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)  # our progress display shows what it would print
        last = newest_checkpoint(output)
        if last is not None:
            progress.say(f"{label}: going on from {last.name}")
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    # Every process has its best weights now; only then may the first one tidy the checkpoints away.
    trainer.accelerator.wait_for_everyone()
    # Mixed precision stays wrapped around `forward` otherwise, and what is measured later is not what is saved.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    best = trainer.state.best_global_step or trainer.state.global_step
    return Fit(trainer.state.global_step, best, tuple(curve_of(trainer.state.log_history)))


def newest_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that was written to its end: its last file, ``trainer_state.json``, can be read."""
    found = sorted(output.glob("checkpoint-[0-9]*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((path for path in found if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def training_arguments(architecture: Architecture, settings: Fitting, *, output: Path, seed: int) -> TrainingArguments:
    """Our defaults, then the recipe's `training_arguments`.

    Raises:
        RecipeError: a name that TrainingArguments does not have (the nearest is named), one that the stage sets, or a
            value of another type.
    """
    arguments_class = Seq2SeqTrainingArguments if architecture == "seq2seq" else TrainingArguments
    _check_arguments(arguments_class, settings.training_arguments)
    # Without an accelerator, accelerate ignores a launcher unless told so: each process would train alone.
    on_cpu = {"use_cpu": not torch.accelerator.is_available()}
    try:
        made: TrainingArguments = arguments_class(
            output_dir=str(output),
            seed=seed,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            restore_callback_states_from_checkpoint=True,  # or patience would begin anew
            **{**_DEFAULTS, **on_cpu, **settings.training_arguments},
        )
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"training_arguments: {one_line(error)}") from error
    if made.world_size != world_size():
        raise RecipeError(
            f"{world_size()} processes were launched, but {made.world_size} would train together; start one a device, "
            "and leave training_arguments.use_cpu to the stage."
        )
    return made


def _check_arguments(arguments_class: type, given: Mapping[str, object]) -> None:
    """What transformers does not check: a dataclass takes a string for a rate, and fails at the first step."""
    types = get_type_hints(arguments_class)
    known = {entry.name for entry in fields(arguments_class)}
    for name, value in given.items():
        if name in _OURS:
            raise RecipeError(f"training_arguments.{name} is set by the stage itself; remove it.")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"; the nearest is {near[0]!r}" if near else ""
            raise RecipeError(f"training_arguments.{name} is not a field of TrainingArguments{meant}.")
        try:
            TypeAdapter(types[name], config=_ANY_TYPE).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise RecipeError(f"training_arguments.{name} = {value!r} is not allowed: {problem}.") from error


def curve_of(log_history: Sequence[Mapping[str, float]]) -> Iterator[CurvePoint]:
    """One point an evaluation, from what the Trainer logged and keeps in its checkpoints."""
    loss = None
    for entry in log_history:
        loss = entry.get("loss", loss)
        if "eval_loss" in entry:
            epoch = round(entry["epoch"], 3)
            yield CurvePoint(int(entry["step"]), epoch, loss, entry["eval_loss"], entry["eval_recall"])


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
    """

    recall: Callable[[PreTrainedModel], float]
    open_task: Callable[[int], Advance]
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
        """Add the recall to the metrics, for `metric_for_best_model = "eval_recall"`, and to the log, for the curve."""
        with torch.inference_mode():
            recall = metrics["eval_recall"] = self.recall(model)
        state.log_history[-1]["eval_recall"] = recall
        self._advance(0, f"validation loss {metrics['eval_loss']:.3f}, recall@10 {recall:.3f}")
