"""Hugging Face's Trainer as we use it: label smoothing for every model, batches of like lengths, a loss that is kept.

Knows neither recipes nor stages.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from genrec.history import IGNORE
from genrec.models import Architecture
from training.examples import Examples

GROUPED = "group_by_length"
_BATCHES_SORTED = 50
"""Examples are sorted by length within so many batches; more would make batches of an epoch all alike."""


class LossMeter(TrainerCallback, ExportableState):  # type: ignore[misc]  # transformers is untyped here
    """Mean training loss since the last evaluation; a checkpoint holds it, so a run that goes on has the same curve.

    Of several processes the first alone writes a checkpoint, so it must know the loss of all by then.
    """

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0
        self.steps = 0

    def add(self, loss: torch.Tensor) -> None:
        """The loss of a step, or its share of one; it stays on the device."""
        self.total = self.total + loss.detach()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Count it."""
        self.steps += 1
        if control.should_save:
            self._share(args)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Note the mean beside the validation loss, for the curve, and begin anew."""
        self._share(args)
        if self.steps:
            state.log_history[-1]["training_loss"] = float(self.total) / self.steps
        self.total, self.steps = 0.0, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; a float comes back from JSON as it was."""
        return {"args": {}, "attributes": {"total": float(self.total), "steps": self.steps}}

    def _share(self, args: TrainingArguments) -> None:
        if args.world_size > 1:
            total = torch.tensor(float(self.total), device=args.device)
            torch.distributed.all_reduce(total)
            self.total = total / args.world_size


class GroupedByLength(Sampler[int]):
    """An order of the examples in which a batch has like lengths; it follows from seed and epoch alone."""

    def __init__(self, examples: Examples, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.examples.epoch))
        order = rng.permutation(len(self))
        block = np.arange(len(self)) // (self.batch_size * _BATCHES_SORTED)
        order = order[np.lexsort((self.examples.lengths()[order], block))]
        whole = len(self) - len(self) % self.batch_size
        batches = rng.permutation(order[:whole].reshape(-1, self.batch_size))  # long ones are not all at the end
        return iter([*batches.reshape(-1).tolist(), *order[whole:].tolist()])


class _Fitted:
    """What is ours, over either Trainer."""

    def compute_loss(
        self: Any,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:  # noqa: ANN401  (a loss, or a pair, as the Trainer wants it)
        """The model's own loss, smoothed while training; validation loss is plain, so that runs compare.

        Transformers' smoother takes the labels away from the model, which T5 and a loss of one's own need, and knows a
        decoder-only model by the names of its own classes.
        """
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)  # type: ignore[misc]  # the Trainer is untyped
        if model.training and self.args.label_smoothing_factor:
            counted = num_items_in_batch if self.model_accepts_loss_kwargs else None
            uniform = uniform_loss(outputs["logits"], inputs["labels"], self.shifted, counted)
            if counted is not None and self.args.average_tokens_across_devices:
                uniform = uniform * self.accelerator.num_processes
            loss = torch.lerp(loss, uniform.to(loss.dtype), self.args.label_smoothing_factor)
        return (loss, outputs) if return_outputs else loss

    def training_step(self: Any, *arguments: object, **named: object) -> torch.Tensor:
        """One batch, or a piece of one; its loss is metered."""
        loss: torch.Tensor = super().training_step(*arguments, **named)  # type: ignore[misc]  # the Trainer is untyped
        next(meter for meter in self.callback_handler.callbacks if isinstance(meter, LossMeter)).add(loss)
        return loss

    def _get_train_sampler(self: Any, train_dataset: Examples | None = None) -> Sampler[int] | None:
        """Transformers' own draws its order from torch's generator, which is elsewhere when a run goes on."""
        if getattr(self.args, "train_sampling_strategy", None) == GROUPED:
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return GroupedByLength(self.train_dataset, size, self.args.seed)
        sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)  # type: ignore[misc]  # the Trainer is untyped
        return sampler


class _Causal(_Fitted, Trainer):  # type: ignore[misc]  # the Trainer is untyped
    shifted = True


class _Seq2Seq(_Fitted, Seq2SeqTrainer):  # type: ignore[misc]  # the Trainer is untyped
    shifted = False


def make_trainer(architecture: Architecture, args: TrainingArguments, **parts: Any) -> Trainer:  # noqa: ANN401  (whatever a Trainer takes)
    """A Trainer of the architecture; `parts` are arguments of its constructor."""
    parts["callbacks"] = [*parts.get("callbacks", ()), LossMeter()]  # last: it must know whether a checkpoint is due
    trainer = (_Seq2Seq if architecture == "seq2seq" else _Causal)(args=args, **parts)
    trainer.label_smoother = None  # ours is in compute_loss
    trainer.remove_callback(PrinterCallback)  # our progress display shows what it would print
    if architecture == "seq2seq":
        # T5 takes num_items_in_batch and ignores it; believed, its mean loss would be multiplied by the processes
        # and not divided by the accumulation steps.
        trainer.model_accepts_loss_kwargs = False
    return trainer


def uniform_loss(
    logits: torch.Tensor, labels: torch.Tensor, shifted: bool, counted: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy against a uniform distribution over the vocabulary, mean over labelled positions.

    Args:
        logits: ``(B, T, V)``.
        labels: ``(B, T)`` int64, IGNORE where there is no loss.
        shifted: Whether the token before a label predicts it.
        counted: Number of labels to divide by, of the whole batch where this is a piece of one; None: those here.
    """
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    found = logits[labels != IGNORE].float()
    losses = found.logsumexp(-1) - found.mean(-1)
    return losses.sum() / (len(losses) if counted is None else counted.to(losses.device))
