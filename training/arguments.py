"""What Hugging Face's Trainer is told: our defaults, then the recipe's `training_arguments`, each of them checked.

Knows neither models nor data, so that a recipe can be refused before any stage runs.
"""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from genrec.errors import RecipeError, one_line
from genrec.models import Architecture
from training.processes import world_size
from training.recipe_model import Fitting

DEFAULTS: dict[str, Any] = {
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
    "dataloader_pin_memory": False,
    "ddp_find_unused_parameters": False,  # there are none, and looking costs a walk over the graph every step
}

OURS = {
    "output_dir", "seed", "data_seed", "remove_unused_columns", "disable_tqdm", "report_to", "push_to_hub", "do_train",
    "resume_from_checkpoint", "restore_callback_states_from_checkpoint", "save_only_model", "use_cache",
    "enable_jit_checkpoint",
}  # fmt: skip
"""What the stage itself decides."""

INSTEAD = {
    "metric_for_best_model": "early_stopping_on",
    "greater_is_better": "early_stopping_on",
    "ignore_data_skip": "nothing: a run that goes on sees each example once",
}
"""What another key of the recipe decides, and which."""

METRICS = {"loss": ("eval_loss", False), "recall": ("eval_recall", True)}
"""`early_stopping_on` -> the Trainer's metric, and whether more of it is better."""

_RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Old names that transformers 5.23 warns of and older ones know alone."""

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)


def training_arguments(architecture: Architecture, settings: Fitting, *, output: Path, seed: int) -> TrainingArguments:
    """Our defaults, then the recipe's `training_arguments`.

    Raises:
        RecipeError: a name that TrainingArguments does not have (the nearest is named), one that is decided elsewhere,
            a value of another type, or arguments that do not go together.
    """
    arguments_class = Seq2SeqTrainingArguments if architecture == "seq2seq" else TrainingArguments
    _check_each(arguments_class, settings.training_arguments)
    # Without an accelerator, accelerate ignores a launcher unless told so: each process would train alone.
    on_cpu = {"use_cpu": not torch.accelerator.is_available()}
    metric, greater = METRICS[settings.early_stopping_on]
    given = {**DEFAULTS, **on_cpu, **settings.training_arguments}
    known = {entry.name for entry in fields(arguments_class)}
    given = {_RENAMED[name] if _RENAMED.get(name) in known else name: value for name, value in given.items()}
    if settings.stop_at_epoch is not None:
        given |= {"eval_strategy": "no", "load_best_model_at_end": False}
    try:
        made: TrainingArguments = arguments_class(
            output_dir=str(output),
            seed=seed,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",  # `tensorboard` has a writer of its own
            restore_callback_states_from_checkpoint=True,  # or patience would begin anew
            metric_for_best_model=metric,
            greater_is_better=greater,
            **given,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"training_arguments: {one_line(error)}") from error
    _check_together(made, settings)
    if made.world_size != world_size():
        raise RecipeError(
            f"{world_size()} processes were launched, but {made.world_size} would train together; start one a device, "
            "and leave training_arguments.use_cpu to the stage."
        )
    return made


def check_arguments(architecture: Architecture, settings: Fitting, section: str) -> None:
    """Refuse what `training_arguments` would refuse, and name the section of the recipe.

    Raises:
        RecipeError: as there.
    """
    try:
        training_arguments(architecture, settings, output=Path("nowhere"), seed=0)
    except RecipeError as error:
        raise RecipeError(f"[{section}] {error}") from error
    if settings.tensorboard and find_spec("tensorboard") is None:
        raise RecipeError(f"{section}.tensorboard needs the package tensorboard: install genrec[tensorboard].")


def _check_together(made: TrainingArguments, settings: Fitting) -> None:
    if settings.stop_at_epoch is not None:
        return
    if settings.average_checkpoints > 1 and not made.load_best_model_at_end:
        raise RecipeError(
            "average_checkpoints starts from the best checkpoint, so load_best_model_at_end must be true."
        )
    if made.eval_strategy == "no":
        raise RecipeError(
            'training_arguments.eval_strategy = "no" leaves nothing to stop by; take "epoch" or "steps", or set '
            "stop_at_epoch."
        )


def _check_each(arguments_class: type, given: Mapping[str, object]) -> None:
    """What transformers does not check: a dataclass takes a string for a rate, and fails at the first step."""
    types = get_type_hints(arguments_class)
    known = {entry.name for entry in fields(arguments_class)}
    for name, value in given.items():
        if name in OURS:
            raise RecipeError(f"training_arguments.{name} is set by the stage itself; remove it.")
        if name in INSTEAD:
            raise RecipeError(f"training_arguments.{name} is not for a recipe; instead there is {INSTEAD[name]}.")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"; the nearest is {near[0]!r}" if near else ""
            raise RecipeError(f"training_arguments.{name} is not a field of TrainingArguments{meant}.")
        try:
            TypeAdapter(types[name], config=_ANY_TYPE).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise RecipeError(f"training_arguments.{name} = {value!r} is not allowed: {problem}.") from error
