"""A checkpoint in memory: the small files of a Hugging Face directory and the weights.

Knows what of it would run code, fetch files or read others, and refuses that before a library sees it: CVE-2026-4372
and CVE-2026-5241 ran code of a config in spite of `trust_remote_code=False`.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genrec.errors import BundleError, InputError, one_line
from genrec.weights import INDEX, read_weights, weight_files

# Keys that make transformers import code, or take files and kernels from elsewhere, at whatever depth they stand.
_UNTRUSTED_KEYS = (
    "auto_map", "_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation",
    "custom_", "quantization_config", "compression_config", "trust_remote_code", "code_revision",
    "transformers_weights", "kernel_config", "use_kernels", "allow_all_kernels", "fusion_config", "adapter_kwargs",
    "base_model_name_or_path", "gguf_file", "distributed_config",
)  # fmt: skip
_ADAPTER_CONFIG = "adapter_config.json"  # where PEFT is installed, transformers follows it to the base model it names
_CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# What AutoConfig and AutoTokenizer may see; a chat template is a program of Jinja and is not among it.
_UNPACKED = {
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json",
}  # fmt: skip
_GENERATION = "generation_config.json"
_VOCABULARIES = (".txt", ".model")


def is_checkpoint_text(name: str) -> bool:
    """Whether a file of a checkpoint's directory is looked at beside its weights."""
    return name in _UNPACKED | {_GENERATION, INDEX, _ADAPTER_CONFIG} or name.endswith(_VOCABULARIES)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a model and its tokenizer are made of.

    Attributes:
        name: its directory, for sentences.
        texts: file name -> bytes, of those files for which `is_checkpoint_text`.
        weights: parameter name -> tensor, in memory that nothing else writes to.
    """

    name: str
    texts: Mapping[str, bytes]
    weights: Mapping[str, torch.Tensor]

    def config(self) -> dict[str, Any]:
        """config.json, if nothing in it would run code or fetch files.

        Raises:
            BundleError: the file is missing, not a JSON object, or holds such a key; or an adapter lies beside it.
        """
        config = self._json("config.json")
        self._refuse_untrusted("config.json", config)
        if _ADAPTER_CONFIG in self.texts:
            raise BundleError(
                f"{self.name}/{_ADAPTER_CONFIG} would load a base model from elsewhere; merge the adapter."
            )
        return config

    def check_texts(self) -> None:
        """The same of all other files, more strictly: no chat template, and no file is named by path.

        Raises:
            BundleError: one holds such a key, or is not a JSON object.
        """
        self.config()
        for file in (_GENERATION, "tokenizer_config.json", "special_tokens_map.json"):
            if file not in self.texts:
                continue
            content = self._json(file)
            self._refuse_untrusted(file, content)
            for key, value in _all_keys(content):
                if value is not None and key.startswith("chat_template"):
                    raise BundleError(f"{self.name}/{file} holds {key!r}, a program that nothing here runs; remove it.")
                if value is not None and (key.endswith(("_file", "_files")) or key == "init_inputs"):
                    raise BundleError(f"{self.name}/{file} holds {key!r}, which could name any file; remove it.")

    @contextmanager
    def unpacked(self) -> Iterator[Path]:
        """A private directory with config and tokenizer files alone, for as long as a library reads it.

        Raises:
            InputError: no temporary directory can be written here.
        """
        try:
            scratch = tempfile.TemporaryDirectory(prefix="genrec-")
        except OSError as error:
            raise _no_scratch(error) from error
        with scratch as root:
            directory = Path(root) / self.name
            try:
                directory.mkdir()
                for name, content in self.texts.items():
                    if name in _UNPACKED or name.endswith(_VOCABULARIES):
                        (directory / name).write_bytes(content)
            except OSError as error:
                raise _no_scratch(error) from error
            yield directory

    def _json(self, file: str) -> dict[str, Any]:
        if file not in self.texts:
            raise BundleError(f"{self.name}/{file} cannot be read: it is missing.")
        try:
            content = json.loads(self.texts[file])
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.name}/{file} cannot be read: {one_line(error)}") from error
        if not isinstance(content, dict):
            raise BundleError(f"{self.name}/{file} is not a JSON object.")
        return content

    def _refuse_untrusted(self, file: str, content: Mapping[str, Any]) -> None:
        for key, value in _all_keys(content):
            if value is not None and key.startswith(_UNTRUSTED_KEYS):
                raise BundleError(
                    f"{self.name}/{file} holds {key[:100]!r}, which could run code or fetch files; remove it."
                )
            if key == "tokenizer_class" and value is not None and not _is_class_name(value):
                raise BundleError(f"{self.name}/{file} holds a {key!r} that is not the name of a class.")


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a directory that no manifest describes: of a draft in training, or a base model.

    Raises:
        BundleError: it cannot be read, or has no weights in safetensors.
    """
    checkpoint = read_texts(path)
    weights: dict[str, torch.Tensor] = {}
    try:
        for name in weight_files({file.name for file in path.iterdir()}, checkpoint.texts.get(INDEX)):
            with (path / name).open("rb", buffering=0) as file:
                weights |= read_weights(file, (path / name).stat().st_size)
    except (OSError, ValueError) as error:
        raise BundleError(f"the checkpoint in {path.name}/ cannot be loaded: {one_line(error)}") from error
    return Checkpoint(path.name, checkpoint.texts, weights)


def read_texts(path: Path) -> Checkpoint:
    """As `read_checkpoint`, but without weights.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        files = [file for file in sorted(path.iterdir()) if is_checkpoint_text(file.name)]
        return Checkpoint(path.name, {file.name: file.read_bytes() for file in files}, {})
    except OSError as error:
        raise BundleError(f"{path.name}/config.json cannot be read: {one_line(error)}") from error


def _all_keys(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON document with its value, whatever it is nested in."""
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _is_class_name(value: object) -> bool:
    return isinstance(value, str) and _CLASS_NAME.fullmatch(value) is not None


def _no_scratch(error: OSError) -> InputError:
    return InputError(f"no temporary directory can be written ({one_line(error)}); set TMPDIR to one.")
