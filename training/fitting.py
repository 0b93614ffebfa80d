"""Fitting weights with Hugging Face's Trainer: arguments, early stopping on validation, the curve of a run.

Knows neither LoRA nor stages: it is given a model and examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
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
from transformers.trainer_utils import get_last_checkpoint

from genrec.errors import RecipeError
from genrec.models import Architecture
from training.examples import Collator, Examples
from training.progress import Advance, Progress
from training.recipe_model import Fitting

# What the stage itself decides; a recipe that sets one of these contradicts another of its keys.
_OURS = {"output_dir", "seed", "remove_unused_columns", "disable_tqdm", "report_to", "push_to_hub", "do_train"}

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
    arguments = training_arguments(architecture, settings, output=output, seed=seed)
    monitor = Monitor(recall)
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=training,
        eval_dataset=validation,
        data_collator=Collator(),
        callbacks=[monitor, EarlyStoppingCallback(settings.early_stopping_patience)],
    )
    trainer.remove_callback(PrinterCallback)  # our progress display shows what it would print
    last = get_last_checkpoint(output) if output.is_dir() else None
    if last is not None:
        progress.say(f"{label}: going on from {Path(last).name}")
    total = arguments.max_steps if arguments.max_steps > 0 else None
    with progress.task(label, total) as advance:
        monitor.advance = advance
        trainer.train(resume_from_checkpoint=last)
    best = trainer.state.best_global_step or trainer.state.global_step
    return Fit(trainer.state.global_step, best, tuple(monitor.curve))


def training_arguments(architecture: Architecture, settings: Fitting, *, output: Path, seed: int) -> TrainingArguments:
    """Our defaults, then the recipe's `training_arguments`.

    Raises:
        RecipeError: a name that TrainingArguments does not have (the nearest is named), or one that the stage sets.
    """
    arguments_class = Seq2SeqTrainingArguments if architecture == "seq2seq" else TrainingArguments
    known = {entry.name for entry in fields(arguments_class)}
    for name in settings.training_arguments:
        if name in _OURS:
            raise RecipeError(f"training_arguments.{name} is set by the stage itself; remove it.")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"; the nearest is {near[0]!r}" if near else ""
            raise RecipeError(f"training_arguments.{name} is not a field of TrainingArguments{meant}.")
    try:
        return arguments_class(
            output_dir=str(output),
            seed=seed,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            **{**_DEFAULTS, **settings.training_arguments},
        )
    except (ValueError, TypeError) as error:
        raise RecipeError(f"training_arguments: {str(error).splitlines()[0]}") from error


@dataclass
class Monitor(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Shows progress and keeps the curve: loss, and the recall that a user would see."""

    recall: Callable[[PreTrainedModel], float]
    advance: Advance = field(default=lambda steps=1, note="": None)
    curve: list[CurvePoint] = field(default_factory=list)
    _loss: float | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """One step further."""
        self.advance(1)

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
            self._loss = float(logs["loss"])
            self.advance(0, f"loss {self._loss:.3f}")

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
        """Add the recall to the metrics, so that `metric_for_best_model = "eval_recall"` works too."""
        with torch.inference_mode():
            metrics["eval_recall"] = self.recall(model)
        point = CurvePoint(
            state.global_step, round(state.epoch or 0.0, 3), self._loss, metrics["eval_loss"], metrics["eval_recall"]
        )
        self.curve.append(point)
        self.advance(0, f"validation loss {point.validation_loss:.3f}, recall@10 {point.validation_recall:.3f}")
