"""Whether a model is of the architecture that the recipe says, told from its config before any stage runs."""

import json
from pathlib import Path

from transformers import AutoConfig

from genrec.errors import RecipeError
from training.recipe import Recipe
from training.recipe_model import Model

_KINDS = {False: ("causal", "a decoder-only"), True: ("seq2seq", "an encoder-decoder")}


def check_model(recipe: Recipe) -> None:
    """Refuse a model of the other architecture; what cannot be told yet, such as a hub id, passes.

    Raises:
        RecipeError: it is of the other.
    """
    table = _config_of(recipe.model)
    model_type = table.get("model_type")
    try:
        config = AutoConfig.for_model(model_type)
    except (KeyError, ValueError):  # a plug-in's, or a misspelt one: the stage looks closer
        return
    encoder_decoder = bool(table.get("is_encoder_decoder", config.is_encoder_decoder))
    right, kind = _KINDS[encoder_decoder]
    if recipe.model.architecture != right:
        origin = (
            "[model.config]" if recipe.model.checkpoint is None else f"model.checkpoint {recipe.model.checkpoint!r}"
        )
        raise RecipeError(
            f'{origin} is {kind} model ({model_type}), but model.architecture = "{recipe.model.architecture}"; set it '
            f'to "{right}", or take another model.'
        )


def _config_of(model: Model) -> dict[str, object]:
    if model.checkpoint is None:
        return dict(model.config or {})
    try:
        table: dict[str, object] = json.loads((Path(model.checkpoint) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table
