"""The base model: what item tokens are added to, from a checkpoint, a plug-in or a config.

Knows no item tokens.
"""

from difflib import get_close_matches

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from genrec.errors import InputError, RecipeError, one_line
from training.gguf import load_gguf
from training.plugin_base import know_config, know_family, read_as_plugin
from training.recipe_model import Model

PAD, END, UNKNOWN, START = "<pad>", "</s>", "<unk>", "<s>"
_OLD_CONFIG_KEYS = ("rope_theta",)  # read by config classes that do not keep it


def load_base(model: Model) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer that items are added to.

    Raises:
        InputError: the checkpoint is not there, or is not of the family that the recipe reads it as.
        RecipeError: the config cannot be built, or names a plug-in that is not installed.
    """
    if model.gguf_file is not None:
        return load_gguf(model.gguf_file)
    if model.checkpoint is not None:
        auto = AutoModelForSeq2SeqLM if model.architecture == "seq2seq" else AutoModelForCausalLM
        try:
            know_family(model.checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(model.checkpoint, trust_remote_code=False)
            if model.plugin is not None:
                return read_as_plugin(model), tokenizer
            base = auto.from_pretrained(
                model.checkpoint, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise InputError(f"model.checkpoint {model.checkpoint!r} cannot be loaded: {one_line(error)}") from error
        return base, tokenizer
    know_config(model)
    tokenizer = bare_tokenizer()
    return _from_config(model, tokenizer), tokenizer


def _from_config(model: Model, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Random weights as `[model.config]` describes them, under a vocabulary of special tokens."""
    auto = AutoModelForSeq2SeqLM if model.architecture == "seq2seq" else AutoModelForCausalLM
    table = dict(model.config or {})
    model_type = table.pop("model_type")
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    if model.architecture == "seq2seq":
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
    try:
        default = AutoConfig.for_model(model_type)
        # transformers keeps any key as an attribute: a misspelt size would quietly be the default one
        unknown = [name for name in table if not hasattr(default, name) and name not in {*ids, *_OLD_CONFIG_KEYS}]
        if unknown:
            near = get_close_matches(unknown[0], dir(default), n=1)
            meant = f"; the nearest is {near[0]!r}" if near else ""
            raise RecipeError(f"[model.config] has {unknown[0]!r}, which no {model_type} config has{meant}.")
        built: PreTrainedModel = auto.from_config(
            AutoConfig.for_model(model_type, **{**ids, **table, "vocab_size": len(tokenizer)})
        )
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise RecipeError(
            f"[model.config] does not describe a {model.architecture} model: {one_line(error)}"
        ) from error
    return built


def bare_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows special tokens only: the base of a model from scratch."""
    words = {token: index for index, token in enumerate((PAD, END, UNKNOWN, START))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, bos_token=START
    )
