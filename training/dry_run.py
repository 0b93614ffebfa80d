"""`genrec train --dry-run`: what a run would learn from, how long it is, and what it needs, before it is begun.

Runs the stages before the fitting ones, which a real run then skips. Trains nothing: one example is sent through the
model, and what autograd keeps of it is counted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, TrainingArguments

from genrec.history import IGNORE
from training.arguments import training_arguments
from training.corpus import Corpus
from training.examples import Collator, Examples
from training.lora import add_lora
from training.mixed_examples import tasks_of
from training.pipeline import run_pipeline
from training.progress import Progress
from training.recipe import Recipe
from training.recipe_model import Finetune, Fitting
from training.stages import stages_of
from training.vocabulary import load_trainable

BEFORE_FITTING = "vocabulary"
_FLOAT = 4  # bytes of a float32: weights and optimizer states have that precision, also under bf16


@dataclass(frozen=True, slots=True)
class Plan:
    """One fitting stage.

    Attributes:
        stage: Its name.
        examples: Of an epoch.
        tokens: Input tokens of an epoch, without padding.
        labels: Tokens of an epoch that a loss is taken on.
        longest: Tokens of the longest input, padded as a batch would be.
        epochs: To be trained at most.
        batch: Examples of a step, of all processes and pieces together.
        steps: Of all epochs, at most.
        trainable: Parameters that are trained.
        frozen: Parameters that are not.
        example_bytes: What the backward pass needs of one example of the longest length.
        piece: Examples that one process has in memory at once.
        tasks: Whose examples they are, in words; none where all are of the next item.
    """

    stage: str
    examples: int
    tokens: int
    labels: int
    longest: int
    epochs: float
    batch: int
    steps: int
    trainable: int
    frozen: int
    example_bytes: int
    piece: int
    tasks: tuple[str, ...] = ()

    @property
    def state_bytes(self) -> int:
        """Weights, and for what is trained a gradient and the two moments of Adam."""
        return _FLOAT * (self.trainable + self.frozen) + 3 * _FLOAT * self.trainable

    @property
    def activation_bytes(self) -> int:
        """Of a batch of the longest inputs."""
        return self.piece * self.example_bytes

    def lines(self) -> Iterator[str]:
        """For the display."""
        weights, moments = _FLOAT * (self.trainable + self.frozen), 2 * _FLOAT * self.trainable
        yield (
            f"{self.stage}: {self.examples:,} examples, {self.tokens:,} tokens an epoch, {self.labels:,} with a loss; "
            f"the longest has {self.longest}"
        )
        if self.tasks:
            yield f"{self.stage}: an epoch has {' + '.join(self.tasks)} examples"
        yield f"{self.stage}: at most {self.epochs:g} epochs in batches of {self.batch:,} = {self.steps:,} steps"
        yield (
            f"{self.stage}: {self.trainable:,} parameters trained, {self.frozen:,} frozen "
            f"({self.trainable / (self.trainable + self.frozen):.1%} trained)"
        )
        yield (
            f"{self.stage}: memory {_size(self.state_bytes + self.activation_bytes)} a process = weights "
            f"{_size(weights)} + gradients {_size(_FLOAT * self.trainable)} + Adam {_size(moments)} + activations "
            f"{_size(self.activation_bytes)} ({self.piece} × {_size(self.example_bytes)}, measured on one example)"
        )


def dry_run(recipe: Recipe, work: Path, progress: Progress) -> list[Plan]:
    """Bring the cheap stages up to date, and say what the fitting stages would do.

    Raises:
        GenrecError: whatever those stages and the recipe's fitting sections raise.
    """
    stages = stages_of(recipe)
    for stage in stages:
        stage.check(recipe)
    run_pipeline(stages, recipe, work, progress, until=BEFORE_FITTING)
    corpus = Corpus.load({stage.name: work / stage.name for stage in stages}, recipe)
    base = work / BEFORE_FITTING / "model"
    plans = []
    if recipe.pretrain is not None and recipe.base is None:
        plans.append(plan("pretrain", load_trainable(base, corpus.architecture), corpus, recipe.pretrain))
    model = load_trainable(base, corpus.architecture)
    if recipe.finetune.method == "lora":
        used = np.unique(corpus.encoder.paths).tolist()
        model = add_lora(model, recipe.finetune.lora, corpus.architecture, used)
    plans.append(plan("finetune", model, corpus, recipe.finetune))
    for line in (line for each in plans for line in each.lines()):
        progress.say(line)
    return plans


def plan(stage: str, model: PreTrainedModel, corpus: Corpus, settings: Fitting | Finetune) -> Plan:
    """What fitting `model` would take."""
    args = training_arguments(corpus.architecture, settings, output=Path("nowhere"), seed=corpus.seed)
    examples = corpus.training_examples(settings)
    lengths = examples.lengths()
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    collator = Collator(corpus.model_inputs, settings.pad_to_multiple_of)
    longest = collator([examples[int(lengths.argmax())]])
    return Plan(
        stage=stage,
        examples=len(examples),
        tokens=int(lengths.sum()),
        labels=_labels(examples),
        longest=int(longest["input_ids"].shape[1]),
        epochs=args.num_train_epochs if args.max_steps <= 0 else args.max_steps / _steps_an_epoch(args, len(examples)),
        batch=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        steps=_steps(args, len(examples)),
        trainable=trainable,
        frozen=sum(weight.numel() for weight in model.parameters()) - trainable,
        example_bytes=_kept_for_backward(model, longest, args),
        piece=args.train_batch_size,
        tasks=tuple(map(str, tasks_of(examples))),
    )


def _steps_an_epoch(args: TrainingArguments, examples: int) -> int:
    batches: int = math.ceil(examples / (args.train_batch_size * args.world_size))
    steps: int = math.ceil(batches / args.gradient_accumulation_steps)
    return steps


def _steps(args: TrainingArguments, examples: int) -> int:
    """As the Trainer counts them."""
    in_epochs = math.ceil(args.num_train_epochs * _steps_an_epoch(args, examples))
    return int(args.max_steps) if args.max_steps > 0 else in_epochs


def _labels(examples: Examples, size: int = 4_096) -> int:
    parts = (np.arange(at, min(at + size, len(examples))) for at in range(0, len(examples), size))
    return sum(int((examples.batch(part).labels != IGNORE).sum()) for part in parts)


def _kept_for_backward(model: PreTrainedModel, batch: dict[str, torch.Tensor], args: TrainingArguments) -> int:
    """Bytes that autograd keeps of a forward pass, the weights themselves left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    if args.gradient_checkpointing:
        # the old name, which transformers 5.23 warns of, is the only one that older ones have
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    noted = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with noted, torch.autocast("cpu", torch.bfloat16, enabled=bool(args.bf16)):
        loss = model(**batch).loss
    del loss  # what was noted lived until here, so no two of it shared an address
    return sum(kept.values())


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
