"""A GGUF file, the format of llama.cpp, as an ordinary model in float32 with its tokenizer.

Quantised weights are unpacked once, when items become tokens; everything after that reads a plain checkpoint. Needs the
package gguf. Knows nothing of items.
"""

from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from genrec.errors import InputError, one_line
from genrec.models import quiet


def load_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A decoder-only model and its tokenizer.

    What transformers loads from such a file calls itself quantised and cannot be saved; its weights are put into a
    model made from the config alone.

    Raises:
        InputError: the file is not there, is no GGUF file that transformers reads, or lacks a weight; or the package
            gguf is not installed.
    """
    if find_spec("gguf") is None:
        raise InputError("model.checkpoint is a GGUF file, which needs the package gguf: install genrec[gguf].")
    if not file.is_file():
        raise InputError(f"model.checkpoint {str(file)!r} is not there; see docs/training.md for a file to start with.")
    try:
        with quiet(), redirect_stderr(StringIO()):  # unpacking has a progress bar without a switch
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
            loaded, report = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # gguf raises whatever its parser meets: of struct, of an index, of a key
        raise InputError(f"model.checkpoint {str(file)!r} cannot be read as GGUF: {one_line(error)}") from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise InputError(f"model.checkpoint {str(file)!r} lacks weight {lacking[0]!r}, {len(lacking)} in all.")
    table = loaded.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):  # the second is a title from the file
        table.pop(key, None)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(table.pop("model_type"), **table), dtype=torch.float32
    )
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig()
    return model, tokenizer
