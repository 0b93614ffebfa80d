"""Loading a checkpoint with Hugging Face's Auto classes, so strictly that nothing can be lost unnoticed.

Knows nothing of items. No remote code, no pickle, no network: a checkpoint is a local directory of safetensors.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from genrec.errors import BundleError, InputError, one_line

Architecture = Literal["seq2seq", "causal"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Keys of config.json that make transformers import code or fetch files (CVE-2026-4372 came through the second).
_UNTRUSTED_KEYS = ("auto_map", "_attn_implementation", "custom_", "quantization_config")
_ADAPTER_CONFIG = "adapter_config.json"  # where PEFT is installed, transformers follows it to the base model it names


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
    """The checkpoint in `path`, ready to decode.

    Its generation config is replaced by an empty one: a `repetition_penalty` or a sampling flag left by a base model
    would change every score (`generate` fills what a caller leaves open from there).

    Raises:
        BundleError: a weight is missing, unexpected, of another shape or not finite, or the files cannot be read.
    """
    check_config(path)
    auto = AutoModelForSeq2SeqLM if architecture == "seq2seq" else AutoModelForCausalLM
    try:
        with _quiet():
            model, report = auto.from_pretrained(
                path,
                dtype=DTYPES[dtype],
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported, and refused below in words of ours
                output_loading_info=True,
            )
    except Exception as error:  # config classes and safetensors have errors of their own
        raise BundleError(f"the checkpoint in {path.name}/ cannot be loaded: {one_line(error)}") from error
    _check_report(path, report)
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise BundleError(
                f"weight {name!r} in {path.name}/ holds NaN or infinite values; the checkpoint is damaged."
            )
    model.generation_config = GenerationConfig()
    moved: PreTrainedModel = model.to(device).eval()
    return moved


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    try:
        with _quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises plain Exception for a malformed file
        raise BundleError(f"the tokenizer in {path.name}/ cannot be loaded: {one_line(error)}") from error
    return tokenizer


def check_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint, if nothing in it would run code or fetch files.

    Raises:
        BundleError: the file is missing, not JSON, or holds such a key.
    """
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path.name}/config.json cannot be read: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path.name}/config.json is not a JSON object.")
    for key, value in config.items():
        if value is not None and key.startswith(_UNTRUSTED_KEYS):
            raise BundleError(f"{path.name}/config.json holds {key!r}, which could run code or fetch files; remove it.")
    if (path / _ADAPTER_CONFIG).exists():
        raise BundleError(f"{path.name}/{_ADAPTER_CONFIG} would load a base model from elsewhere; merge the adapter.")
    return config


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


def _check_report(path: Path, report: dict[str, Any]) -> None:
    for key, told in (("missing_keys", "lacks"), ("unexpected_keys", "holds the unexpected")):
        names = sorted(map(str, report[key]))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise BundleError(
                f"the checkpoint in {path.name}/ {told} weight {names[0]!r}{more}; "
                "it was saved from another model class or another library version."
            )
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise BundleError(
            f"weight {name!r} in {path.name}/ has shape {list(stored)}, but its config says {list(expected)}."
        )
    for message in report.get("error_msgs") or ():
        raise BundleError(f"the checkpoint in {path.name}/ does not fit its config: {message}")


@contextmanager
def _quiet() -> Iterator[None]:
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
