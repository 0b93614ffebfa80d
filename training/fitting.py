"""Fitting weights with Hugging Face's Trainer: from a model and examples to its best weights and the curve of the run.

Knows neither LoRA nor stages. A run that was killed or stopped goes on from its newest whole checkpoint to the very
weights and curve of one that was not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from genrec.errors import Stopped
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.model_plugin import check_inputs
from genrec.models import Architecture
from training.arguments import METRICS, training_arguments
from training.averaging import Soup, stir
from training.board import Board
from training.callbacks import Epochs, Keeper, Monitor, Stopper
from training.checkpoints import (
    PREFIX,
    Checkpoint,
    all_checkpoints,
    best_first,
    newest,
    remove_after,
    scores_of,
    step_of,
)
from training.dropout import residual_dropout
from training.examples import Collator, Examples
from training.mixed_examples import tasks_of
from training.progress import Progress
from training.recipe_model import Fitting
from training.stopping import sigterm_noted
from training.trainer import make_trainer

Recall = Callable[[PreTrainedModel], float]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was known at one evaluation.

    Attributes:
        training_loss: mean over the steps since the evaluation before, label smoothing included.
        validation_loss: plain cross-entropy.
    """

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
        best_step: the step that was best on validation, the last one where nothing was validated.
        curve: one point an evaluation.
        averaged: the steps whose weights the model has the mean of now; `best_step` alone, or it and others.
    """

    steps: int
    best_step: int
    curve: tuple[CurvePoint, ...]
    averaged: tuple[int, ...] = ()


def fit(
    model: PreTrainedModel,
    architecture: Architecture,
    training: Examples,
    validation: Examples | None,
    *,
    settings: Fitting,
    seed: int,
    output: Path,
    recall: Recall,
    progress: Progress,
    label: str,
    model_inputs: ModelInputs = NO_INPUTS,
    event_files: Path | None = None,
) -> Fit:
    """Train `model` in place and leave it with its best weights on validation.

    Args:
        validation: None where `settings.stop_at_epoch` says when to stop.
        recall: Recall@10 of a model on validation users, asked at each evaluation.
        output: checkpoints go here; a run that was killed goes on from the newest.
        label: what the progress display calls it.
        model_inputs: what the model takes beside ids and mask.
        event_files: where TensorBoard's go, if they are wanted.

    Raises:
        RecipeError: a training argument is unknown or contradicts the stage.
        TrainingError: the loss is no number any more.
        Stopped: SIGTERM came; a checkpoint of that moment was saved.
    """
    output = output.resolve()  # checkpoints note the path of the best one, which a run from elsewhere must find
    args = training_arguments(architecture, settings, output=output, seed=seed)
    check_inputs(model, model_inputs)
    tasks = tasks_of(training)
    if tasks:
        progress.say(f"{label}: an epoch has {' + '.join(map(str, tasks))} examples")
    model.config.use_cache = False  # keys and values of a step are of no use to the next
    with ExitStack() as until_done:
        asked_to_stop = until_done.enter_context(sigterm_noted())
        until_done.enter_context(residual_dropout(model, settings.dropout))
        trainer = make_trainer(
            architecture,
            args,
            model=model,
            train_dataset=training,
            eval_dataset=validation,
            data_collator=Collator(model_inputs, settings.pad_to_multiple_of),
            callbacks=[
                Epochs(training),
                Monitor(recall, lambda total: until_done.enter_context(progress.task(label, total)), label),
                Stopper(asked_to_stop, settings.stop_at_epoch),
                *_callbacks(args, settings, output, event_files),
            ],
        )
        _train(trainer, settings, output, progress, label)
        if asked_to_stop():
            raise Stopped(
                f"{label} was stopped by SIGTERM after step {trainer.state.global_step}; the same command goes on from "
                "its newest checkpoint."
            )
        soup = _average(trainer, model, output, settings, recall)
    if soup is not None:
        progress.say(f"{label}: {_told(soup, settings)}")
    # Every process has its best weights now; only then may the first one tidy the checkpoints away.
    trainer.accelerator.wait_for_everyone()
    # Mixed precision stays wrapped around `forward` otherwise, and what is measured later is not what is saved.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    best = trainer.state.best_global_step or trainer.state.global_step
    averaged = tuple(map(step_of, soup.members)) if soup is not None else (best,)
    return Fit(trainer.state.global_step, best, tuple(curve_of(trainer.state.log_history)), averaged)


def _callbacks(
    args: TrainingArguments, settings: Fitting, output: Path, event_files: Path | None
) -> Iterator[TrainerCallback]:
    metric, greater = METRICS[settings.early_stopping_on]
    yield Keeper(output, metric, greater, keep_best=settings.average_checkpoints, limit=args.save_total_limit)
    args.save_total_limit = None  # the keeper removes, after it has sealed
    if settings.stop_at_epoch is None:
        yield EarlyStoppingCallback(settings.early_stopping_patience)
    if event_files is not None:
        yield Board(event_files)


def _train(trainer: Trainer, settings: Fitting, output: Path, progress: Progress, label: str) -> None:
    """From the start or from the newest checkpoint to the end, and then the best weights."""
    last = _going_on_from(trainer, output, progress, label)
    if last is None or not _ended(last, settings):
        trainer.train(resume_from_checkpoint=None if last is None else str(last.path))
        return
    trainer.state = TrainerState.load_from_json(str(last.path / TRAINER_STATE_NAME))
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    _load(trainer, output / f"{PREFIX}{best or last.step}")


def _going_on_from(trainer: Trainer, output: Path, progress: Progress, label: str) -> Checkpoint | None:
    """The checkpoint that a run goes on from; what is newer and damaged is removed."""
    last, passed = newest(output)
    for sentence in passed:
        progress.say(f"{label}: {sentence}")
    if last is not None:
        progress.say(f"{label}: going on from {last.path.name}")
    elif passed:
        progress.say(f"{label}: no checkpoint is whole, beginning again")
    trainer.accelerator.wait_for_everyone()  # all have looked
    if trainer.is_world_process_zero():
        remove_after(output, 0 if last is None else last.step)
    return last


def _ended(last: Checkpoint, settings: Fitting) -> bool:
    """Whether there is nothing left to train: the process died between its last step and its result."""
    state = last.state
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    out_of_patience = stopping.get("early_stopping_patience_counter", 0) >= settings.early_stopping_patience
    at_the_epoch = settings.stop_at_epoch is not None and state["epoch"] >= settings.stop_at_epoch
    return bool(state["global_step"] >= state["max_steps"] or out_of_patience or at_the_epoch)


def _load(trainer: Trainer, checkpoint: Path) -> None:
    trainer._load_from_checkpoint(str(checkpoint))  # full weights and adapters alike; no public door has both


def _average(trainer: Trainer, model: PreTrainedModel, output: Path, settings: Fitting, recall: Recall) -> Soup | None:
    """The mean of the best checkpoints, if the recipe asks for one; `model` has it afterwards."""
    metric, greater = METRICS[settings.early_stopping_on]
    scores = scores_of(trainer.state.log_history, metric, greater)
    best = best_first([step_of(path) for path in all_checkpoints(output)], scores)[: settings.average_checkpoints]
    if settings.average_checkpoints == 1 or not best:
        return None

    def score() -> float:
        if settings.early_stopping_on == "loss":
            return -float(trainer.evaluate(metric_key_prefix="mean")["mean_loss"])
        with torch.inference_mode():
            return recall(model)

    paths = [output / f"{PREFIX}{step}" for step in best]
    return stir(model, paths, load=lambda checkpoint: _load(trainer, checkpoint), score=score)


def _told(soup: Soup, settings: Fitting) -> str:
    names = ", ".join(path.name for path in soup.members)
    values = " → ".join(f"{abs(score):.4f}" for score in soup.scores)
    if len(soup.members) == 1:
        return f"no mean of the best {soup.tried} checkpoints is better on validation than {names}"
    return f"mean of {names}, of {soup.tried} tried: validation {settings.early_stopping_on} {values}"


def curve_of(log_history: Sequence[Mapping[str, float]]) -> Iterator[CurvePoint]:
    """One point an evaluation, from what the Trainer logged and keeps in its checkpoints."""
    for entry in log_history:
        if "eval_loss" in entry:
            epoch, loss = round(entry["epoch"], 3), entry.get("training_loss")
            yield CurvePoint(int(entry["step"]), epoch, loss, entry["eval_loss"], entry["eval_recall"])
