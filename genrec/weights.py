"""Weights of safetensors files, read into memory of our own.

The library's loader maps the file: what is written into it later changes weights that are being served, and a file cut
short ends the process with SIGBUS. Here bytes are copied from a stream, once and in order, so that whoever hashes the
stream has hashed what is loaded. Knows no model and no bundle.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Protocol

import torch

INDEX = "model.safetensors.index.json"
"""Which weight is in which file, where there are several."""

_SINGLE = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000  # as the library has it
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Stream(Protocol):
    """What weights are read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill some of `buffer`; 0 at the end."""


def weight_files(names: Collection[str], index: bytes | None) -> list[str]:
    """Which of the files of a checkpoint hold its weights.

    Args:
        names: the files of its directory.
        index: content of `INDEX`, if it is there.

    Raises:
        ValueError: none, or one that the index names is not there.
    """
    if _SINGLE in names:
        return [_SINGLE]
    if index is None:
        raise ValueError(f"there is neither {_SINGLE} nor {INDEX}")
    content = json.loads(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{INDEX} has no weight_map")
    files = sorted(set(map(str, weight_map.values())))
    for file in files:
        if file not in names or PurePosixPath(file).suffix != ".safetensors":
            raise ValueError(f"{INDEX} names the file {file[:100]!r}, which is not there")
    return files


def read_weights(stream: Stream, size: int) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, each in memory of its own.

    Args:
        stream: the file, at its beginning; afterwards at its end.
        size: bytes of the file; nothing larger is allocated.

    Raises:
        ValueError: it is not a safetensors file of that size.
        OSError: it cannot be read.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, dtype, shape in read_header(stream, size):
        tensor = tensors[name] = torch.empty(shape, dtype=dtype)
        if tensor.numel():
            _fill(stream, tensor.view(-1).view(torch.uint8).numpy().data)
    return tensors


def read_header(stream: Stream, size: int) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Name, dtype and shape of the tensors of a safetensors file, in the order in which their bytes follow.

    Raises:
        ValueError: it is not a safetensors file of that size: its tensors overlap, leave gaps, or end elsewhere.
        OSError: it cannot be read.
    """
    length = int.from_bytes(_exactly(stream, 8, size), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header would have {length} bytes")
    try:
        header = json.loads(_exactly(stream, length, size - 8))
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not text by text")
    entries = sorted((_entry(name, facts) for name, facts in header.items()), key=lambda entry: entry[3])
    end = 0
    for name, _, _, (first, last) in entries:
        if first != end:
            raise ValueError(f"the bytes of {name[:100]!r} begin at {first}, not at {end}")
        end = last
    if 8 + length + end != size:
        raise ValueError(f"its tensors need {8 + length + end} bytes, but it has {size}")
    return [(name, dtype, shape) for name, dtype, shape, _ in entries]


def _entry(name: str, facts: object) -> tuple[str, torch.dtype, tuple[int, ...], tuple[int, int]]:
    if not isinstance(facts, Mapping):
        raise ValueError(f"{name[:100]!r} is not described")
    dtype = _DTYPES.get(str(facts.get("dtype")))
    shape, offsets = _counts(facts.get("shape")), _counts(facts.get("data_offsets"))
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise ValueError(f"{name[:100]!r} has no dtype, shape and data_offsets that are read here")
    filled = offsets[1] - offsets[0] == math.prod(shape) * dtype.itemsize
    if not filled or math.prod(filter(None, shape)) >= 2**63:  # an empty tensor may be of any shape, its strides not
        raise ValueError(f"{name[:100]!r} of shape {list(shape)} does not fill its bytes")
    return name, dtype, shape, (offsets[0], offsets[1])


def _counts(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2**63 for value in values):
        return None
    return tuple(values)


def _exactly(stream: Stream, count: int, at_most: int) -> bytes:
    if count > at_most:
        raise ValueError("it is cut short")
    content = bytearray(count)
    _fill(stream, memoryview(content))
    return bytes(content)


def _fill(stream: Stream, view: memoryview) -> None:
    while view:
        count = stream.readinto(view)
        if not count:
            raise ValueError("it is cut short")
        view = view[count:]
