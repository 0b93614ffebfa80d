"""Loading a checkpoint with Hugging Face's Auto classes, so strictly that nothing can be lost unnoticed.

Knows nothing of items. No remote code, no pickle, no network: a checkpoint is a local directory of safetensors, which
`genrec.checkpoint` reads into memory of our own.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from genrec.checkpoint import Checkpoint, read_checkpoint, read_texts
from genrec.errors import BundleError, InputError, one_line
from genrec.model_plugin import ModelPlugin, installed_plugin

Architecture = Literal["seq2seq", "causal"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> str:
    """`auto` becomes cuda where there is one, else cpu; anything else is checked.

    Raises:
        InputError: the device does not exist here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if re.fullmatch(r"cuda(:\d{1,4})?", device) is None:
        raise InputError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N.")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= found:
        raise InputError(
            f"device {device!r} was asked for, but PyTorch sees {found or 'no'} CUDA device(s); "
            "use --device cpu or auto."
        )
    return device


def resolve_dtype(dtype: str, *, device: str, stored: str) -> str:
    """`auto` is float32 on CPU and the dtype of the stored weights elsewhere.

    Raises:
        InputError: the dtype is none that models are served in.
    """
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    if dtype == "auto":
        return "float32" if device == "cpu" else stored
    dtype = short.get(dtype, dtype)
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; use auto, {', '.join(DTYPES)}.")
    return dtype


def load_model(
    path: Path, architecture: Architecture, *, device: str = "cpu", dtype: str = "float32"
) -> PreTrainedModel:
    """The checkpoint in the directory `path`, ready to decode; see `build_model`.

    Raises:
        BundleError: as `build_model`, or the files cannot be read.
    """
    check_config(path)
    model = build_model(read_checkpoint(path), architecture, device=device, dtype=dtype)
    model.name_or_path = model.config.name_or_path = str(path)  # PEFT looks there for the base model's config
    return model


def build_model(
    checkpoint: Checkpoint, architecture: Architecture, *, device: str = "cpu", dtype: str = "float32"
) -> PreTrainedModel:
    """The model of a checkpoint, ready to decode. Where dtypes agree its parameters are the checkpoint's tensors.

    Its generation config is replaced by an empty one: a `repetition_penalty` or a sampling flag left by a base model
    would change every score (`generate` fills what a caller leaves open from there).

    Raises:
        BundleError: a weight is missing, unexpected, of another shape or not finite, or the config is of no such model,
            or of a family that is not installed.
    """
    name = checkpoint.name
    plugin = plugin_of(checkpoint)
    with checkpoint.unpacked() as directory:
        model_class, config = _model_class(_read_config(directory), architecture, name)
    try:
        with quiet():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(checkpoint.weights),
                dtype=DTYPES[dtype],
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported, and refused below in words of ours
                output_loading_info=True,
            )
    except Exception as error:  # model classes have errors of their own
        raise BundleError(f"the checkpoint in {name}/ cannot be loaded: {one_line(error)}") from error
    _check_report(name, report)
    swallowed = None if plugin is None else plugin.swallowed_input(model)
    if swallowed is not None:
        raise BundleError(
            f"the encoder of {type(model).__name__} has no argument {swallowed!r} in its forward and would ignore it; "
            "mend the plug-in."
        )
    for parameter_name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise BundleError(
                f"weight {parameter_name!r} in {name}/ holds NaN or infinite values; the checkpoint is damaged."
            )
    model.generation_config = GenerationConfig()
    # The ties that held. Resizing and PEFT go by the ties of the class, T5's own head (v1.1, Flan) among them.
    model._tied_weights_keys = dict(model.all_tied_weights_keys)
    moved: PreTrainedModel = model.to(device).eval()
    return moved


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the directory `path`.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises plain Exception for a malformed file
        raise BundleError(f"the tokenizer in {path.name}/ cannot be loaded: {_without_path(error, path)}") from error
    return tokenizer


def build_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint in memory.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    with checkpoint.unpacked() as directory:
        return load_tokenizer(directory)


def check_config(path: Path) -> dict[str, Any]:
    """config.json of the checkpoint in a directory, if nothing in it would run code or fetch files.

    Raises:
        BundleError: the file is missing, not JSON, or holds such a key.
    """
    return read_texts(path).config()


def plugin_of(checkpoint: Checkpoint) -> ModelPlugin | None:
    """The plug-in that reads a checkpoint, known to the Auto classes from now on; None where they need none.

    Raises:
        BundleError: config.json is not as `Checkpoint.config` wants it, or of a family that nothing installed has.
    """
    model_type = checkpoint.config().get("model_type")
    if not isinstance(model_type, str):
        return None  # for the Auto classes to refuse
    try:
        return installed_plugin(model_type)
    except InputError as error:
        raise BundleError(f"the checkpoint in {checkpoint.name}/ cannot be loaded: {error}") from error


def special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of pad, start, end and every other special token, as tokenizer and config name them."""
    ids = set(tokenizer.all_special_ids)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "sep_token_id"):
        value = getattr(model.config, name, None)
        ids |= set(value) if isinstance(value, list | tuple) else {value}
    return {int(value) for value in ids if value is not None}


def embedding_rows(model: PreTrainedModel) -> tuple[int, int]:
    """Rows of the input embedding and of the output head."""
    return model.get_input_embeddings().weight.shape[0], model.get_output_embeddings().weight.shape[0]


def _check_report(checkpoint: str, report: dict[str, Any]) -> None:
    for key, told in (("missing_keys", "lacks"), ("unexpected_keys", "holds the unexpected")):
        names = sorted(map(str, report[key]))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise BundleError(
                f"the checkpoint in {checkpoint}/ {told} weight {names[0]!r}{more}; "
                "it was saved from another model class or another library version."
            )
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise BundleError(
            f"weight {name!r} in {checkpoint}/ has shape {list(stored)}, but its config says {list(expected)}."
        )
    for message in report.get("error_msgs") or ():
        raise BundleError(f"the checkpoint in {checkpoint}/ does not fit its config: {message}")


def _read_config(path: Path) -> PreTrainedConfig:
    try:
        with quiet():
            config: PreTrainedConfig = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # config classes have errors of their own
        raise BundleError(f"the checkpoint in {path.name}/ cannot be loaded: {_without_path(error, path)}") from error
    return config


def _model_class(
    config: PreTrainedConfig, architecture: Architecture, checkpoint: str
) -> tuple[type[PreTrainedModel], PreTrainedConfig]:
    """The class that the Auto classes would take, and the config it takes; they themselves insist on a path."""
    mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if architecture == "seq2seq" else MODEL_FOR_CAUSAL_LM_MAPPING
    found = mapping.get(type(config), None)
    classes = found if isinstance(found, list | tuple) else [found]
    named = [one for one in classes if one is not None and one.__name__ in (config.architectures or ())]
    model_class = (named or classes)[0]
    if model_class is None:
        raise BundleError(
            f"the checkpoint in {checkpoint}/ cannot be loaded: {config.model_type!r} is no {architecture} model."
        )
    text_config = config.sub_configs.get("text_config")
    if text_config is not None and model_class.config_class is text_config:  # the language half of a larger model
        config = config.get_text_config()
    return model_class, config


def _without_path(error: Exception, path: Path) -> str:
    """What a library says, without where the files lie."""
    return one_line(error).replace(str(path), path.name)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' loading report: what it would warn of is an error here."""
    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()
