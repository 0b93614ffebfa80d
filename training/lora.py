"""LoRA around a model whose vocabulary has grown, by a policy that leaves no new token untrained.

Added tokens make LoRA fail in silence: the adapter trains, the new rows stay as they were drawn. What works depends on
how the model ties its matrices; each row of `trainable_tokens` was verified against PEFT 0.21.
"""

from collections.abc import Sequence

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from genrec.errors import RecipeError, one_line
from genrec.models import Architecture
from training.recipe_model import Lora
from training.vocabulary import is_tied

TokenRows = list[int] | dict[str, list[int]]


def add_lora(model: PreTrainedModel, lora: Lora, architecture: Architecture, token_ids: Sequence[int]) -> PeftModel:
    """Wrap `model` so that only LoRA matrices, the rows of item tokens and `modules_to_save` are trained.

    Raises:
        RecipeError: no module matches `target_modules`, `modules_to_save` has a matrix whose rows are trained already,
            or the model cannot take LoRA with new tokens.
    """
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if architecture == "seq2seq" else TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=target_modules(lora.target_modules),
        modules_to_save=list(lora.modules_to_save) or None,
        # else a tied matrix that is saved becomes two; T5, where PEFT cannot tie them, fails its gradient proof
        ensure_weight_tying=bool(lora.modules_to_save) and is_tied(model) and architecture == "causal",
        trainable_token_indices=trainable_tokens(model, token_ids) if lora.train_item_tokens else None,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"finetune.lora cannot be put into this model: {one_line(error)}") from error


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

    Tied models and T5 v1.0: the ids alone; PEFT then trains one shared set of rows. Untied decoder-only models: the ids
    for both matrices, or the head would stay frozen and new tokens could never be generated well.

    Raises:
        RecipeError: T5 with a head of its own, where encoder and decoder rows would train apart and merge into neither.
    """
    ids = list(token_ids)
    if is_tied(model):
        return ids
    if model.config.is_encoder_decoder:
        raise RecipeError(
            "this encoder-decoder model has an output head of its own (T5 v1.1, Flan), and LoRA cannot train its new "
            'tokens in one piece; set finetune.method = "full", or take a T5 v1.0 checkpoint.'
        )
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
