"""LoRA around a model whose vocabulary has grown, by a policy that leaves no new token untrained.

Added tokens make LoRA fail in silence: the adapter trains, the new rows stay as they were drawn. What works depends on
how the model ties its matrices; each row of `trainable_tokens` was verified against PEFT 0.21.
"""

from collections.abc import Sequence
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from genrec.errors import RecipeError, one_line
from genrec.model_plugin import plugin_in_use
from genrec.models import Architecture
from training.recipe_model import TASK_TYPES, Lora
from training.vocabulary import is_tied

TokenRows = list[int] | dict[str, list[int]]


def add_lora(model: PreTrainedModel, lora: Lora, architecture: Architecture, token_ids: Sequence[int]) -> PeftModel:
    """Wrap `model` so that only LoRA matrices, the rows of item tokens and `modules_to_save` are trained.

    What a plug-in adds to the family it extends is trained whole too: no LoRA matrix would reach it.

    Args:
        model: as `genrec.models.load_model` gives it, which notes what it ties.
        lora: the section of the recipe.
        architecture: of the model.
        token_ids: of the item tokens that are in use.

    Raises:
        RecipeError: no module matches `target_modules`, or `modules_to_save` has a matrix whose rows are trained
            already.
    """
    tied, plugin = is_tied(model), plugin_in_use(model)
    whole = dict.fromkeys([*lora.modules_to_save, *(() if plugin is None else plugin.trained_modules)])
    config = LoraConfig(
        task_type=TASK_TYPES[architecture],
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        target_modules=target_modules(lora.target_modules),
        modules_to_save=list(whole) or None,
        # else a tied matrix that is saved becomes two; T5, where PEFT cannot tie them, fails its gradient proof
        ensure_weight_tying=bool(lora.modules_to_save) and tied and architecture == "causal",
        trainable_token_indices=trainable_tokens(model, token_ids) if lora.train_item_tokens else None,
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"finetune.lora cannot be put into this model: {one_line(error)}") from error
    return _tied_as_it_is(adapted, tied)


def load_adapter(base: PreTrainedModel, adapter: Path) -> PeftModel:
    """The base model, as `genrec.models.load_model` gives it, with an adapter on it, not merged."""
    tied = is_tied(base)
    return _tied_as_it_is(PeftModel.from_pretrained(base, adapter), tied).eval()


def _tied_as_it_is(adapted: PeftModel, tied: bool) -> PeftModel:
    """Let the config say so: T5's says "tied" of every head, by which PEFT found what encoder and decoder share."""
    adapted.get_base_model().config.tie_word_embeddings = tied
    return adapted


def target_modules(wanted: str | Sequence[str]) -> str | list[str] | None:
    """What PEFT takes: a list of module names, one regular expression, `all-linear`, or None for the family's default.

    A string with nothing of a regular expression in it is one module's name; PEFT would match it against whole paths.
    """
    if wanted == "default":
        return None
    if wanted == "all-linear":
        return "all-linear"
    if isinstance(wanted, str):
        return wanted if set(wanted) & set(".*+?[](){}|^$\\") else [wanted]
    return list(wanted)


def trainable_tokens(model: PreTrainedModel, token_ids: Sequence[int]) -> TokenRows:
    """Which rows PEFT must train, by how the model ties its matrices.

    Tied models, T5 v1.0 among them: the ids alone; PEFT then trains one set of rows for every matrix that is tied.
    Untied models: the ids for both matrices, or the head would stay frozen and new tokens could never be generated
    well. In T5 v1.1 and Flan the input matrix is the one that encoder and decoder share; PEFT ties their rows to it, by
    the ties that `genrec.models.load_model` noted.
    """
    ids = list(token_ids)
    if is_tied(model):
        return ids
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    return {names[id(module)]: ids for module in (model.get_input_embeddings(), model.get_output_embeddings())}


def adapted_modules(model: PeftModel) -> list[str]:
    """Names of the modules that LoRA was put into."""
    prefix = "base_model.model."
    return sorted(name.removeprefix(prefix) for name, module in model.named_modules() if hasattr(module, "lora_A"))


def summarise(names: Sequence[str]) -> str:
    """Module names by their last part, with counts: ``q_proj ×2, v_proj ×2``."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return ", ".join(f"{name} ×{last.count(name)}" for name in dict.fromkeys(last))
