"""A base model of a plug-in family: from a checkpoint of its own, or from one of the family that it extends.

Knows nothing of items. See docs/models.md.
"""

from difflib import get_close_matches

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from genrec.errors import InputError, RecipeError
from genrec.model_plugin import ModelPlugin, installed_plugin
from genrec.models import quiet
from training.recipe_model import Model


def know_family(checkpoint: str) -> None:
    """Make the Auto classes read a checkpoint whose family an installed plug-in brings.

    Raises:
        InputError: nothing installed has its family.
        OSError: it has no config that can be read.
    """
    config, _ = PreTrainedConfig.get_config_dict(checkpoint)
    if isinstance(config.get("model_type"), str):
        installed_plugin(config["model_type"])


def know_config(model: Model) -> None:
    """The same for a family that a recipe's `[model.config]` names.

    Raises:
        RecipeError: nothing installed has it.
    """
    try:
        installed_plugin(str((model.config or {})["model_type"]))
    except InputError as error:
        raise RecipeError(f"[model.config]: {error}") from error


def read_as_plugin(model: Model) -> PreTrainedModel:
    """The checkpoint of a family that a plug-in extends, as the plug-in's: what that adds begins as it says.

    Raises:
        RecipeError: there is no such plug-in, it is of another architecture, or has no such config keys.
        InputError: the checkpoint has weights that the plug-in has no place for, or lacks some that it does not add.
        OSError, ValueError: transformers cannot load it.
    """
    plugin = _plugin(model)
    config, _ = PreTrainedConfig.get_config_dict(model.checkpoint)
    for name in ("model_type", "architectures"):  # the other family's
        config.pop(name, None)
    with quiet():
        base, report = plugin.model_class.from_pretrained(
            model.checkpoint,
            config=plugin.config_class(**{**config, **(model.config or {})}),
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    found: PreTrainedModel = base
    added = set(plugin.trained_modules)
    foreign = [*report["unexpected_keys"], *(name for name in report["missing_keys"] if not added & {*name.split(".")})]
    if foreign:
        raise InputError(
            f"model.checkpoint {model.checkpoint!r} cannot be read as {plugin.model_type}: weight {min(foreign)!r} is "
            "in one of the two alone, and not in the plug-in's trained_modules."
        )
    return found


def _plugin(model: Model) -> ModelPlugin:
    try:
        plugin = installed_plugin(str(model.plugin))
    except InputError as error:
        raise RecipeError(f"model.plugin: {error}") from error
    if plugin is None:
        raise RecipeError(f"model.plugin = {model.plugin!r} is of transformers and needs no plug-in; remove it.")
    if plugin.architecture != model.architecture:
        raise RecipeError(
            f"model.plugin = {model.plugin!r} is {plugin.architecture}; "
            f'set model.architecture = "{plugin.architecture}".'
        )
    for name in model.config or {}:
        if name not in plugin.config_keys:
            near = get_close_matches(name, plugin.config_keys, n=1)
            meant = f"; the nearest is {near[0]!r}" if near else ""
            raise RecipeError(
                f"[model.config] has {name!r}, and beside a checkpoint it may hold what {model.plugin} adds: "
                f"{', '.join(plugin.config_keys) or 'nothing'}{meant}."
            )
    return plugin
