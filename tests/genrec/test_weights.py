"""Our reader of safetensors gives what the library gives, in memory of its own, and refuses what the library does."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

from genrec.weights import read_header, read_weights, weight_files

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
]
DTYPES += [torch.uint8, torch.bool]


class Dribble(io.BytesIO):
    """A stream that gives a few bytes at a time, as a network file system may."""

    def readinto(self, buffer: memoryview, /) -> int:
        return super().readinto(buffer[:5])


def read(content: bytes) -> dict[str, torch.Tensor]:
    return read_weights(io.BytesIO(content), len(content))


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9), st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4))
    )
)
@settings(max_examples=60, deadline=None)
def test_every_tensor_is_read_as_the_library_reads_it(shapes: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    shapes.pop("__metadata__", None)
    written = {name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in shapes.items()}
    content = save(written, metadata={"format": "pt"})
    for found in (read(content), read_weights(Dribble(content), len(content))):
        assert found.keys() == written.keys()
        for name, tensor in load(content).items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


def test_bytes_are_kept_exactly_also_those_that_are_no_number() -> None:
    weights = {"a": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])}
    assert save(read(save(weights))) == save(weights)


def test_tensors_share_no_memory_with_each_other_and_can_be_written() -> None:
    content = save({"a": torch.zeros(3), "b": torch.ones(3)})
    found = read(content)
    found["a"] += 5
    assert found["b"].tolist() == [1, 1, 1]
    assert read(content)["a"].tolist() == [0, 0, 0]


def test_the_stream_is_read_to_its_end_and_no_further() -> None:
    content = save({"a": torch.zeros(7)})
    stream = io.BytesIO(content + b"more")
    read_weights(stream, len(content))
    assert stream.read() == b"more"


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a header longer than the file": (1 << 20).to_bytes(8, "little") + b"{}",
    "a header without end": b"\xff" * 8 + b"{}",
    "a header of a gigabyte": (1 << 30).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": file_of(b"{"),
    "a header that is no text": file_of(b"\xff\xfe"),
    "a header that is a list": file_of([]),
    "a header nested without end": file_of(b"[" * 100_000),
    "a number of many digits": file_of(b'{"a": ' + b"9" * 5000 + b"}"),
    "metadata that are no text": file_of({"__metadata__": {"format": 1}}),
    "metadata that are a list": file_of({"__metadata__": []}),
    "a tensor that is a number": file_of({"a": 1}),
    "no dtype": file_of({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "an unknown dtype": file_of({"a": entry([1], 0, 4, "C64")}, bytes(4)),
    "a dtype that is a list": file_of({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "no shape": file_of({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "a negative shape": file_of({"a": entry([-1], 0, 4)}, bytes(4)),
    "two negative shapes": file_of({"a": entry([-1, -1], 0, 4)}, bytes(4)),
    "a shape of booleans": file_of({"a": entry([True], 0, 4)}, bytes(4)),
    "a shape of fractions": file_of({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, bytes(4)),
    "a shape beyond all memory": file_of({"a": entry([2**40, 2**20], 0, 4)}, bytes(4)),
    "an empty shape beyond all strides": file_of({"a": entry([0, 2**62, 2**62], 0, 0)}),
    "one offset": file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, bytes(4)),
    "offsets backwards": file_of({"a": entry([1], 4, 0)}, bytes(4)),
    "a gap before": file_of({"a": entry([1], 4, 8)}, bytes(8)),
    "a gap between": file_of({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "tensors that overlap": file_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "one tensor twice": file_of({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "bytes left over": file_of({"a": entry([1], 0, 4)}, bytes(5)),
    "bytes missing": file_of({"a": entry([2], 0, 8)}, bytes(7)),
    "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "a zip": b"PK\x03\x04" + bytes(60),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_safetensors_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(MALFORMED[name])
    with pytest.raises(ValueError, match=r"."):
        read_header(io.BytesIO(MALFORMED[name]), len(MALFORMED[name]))


@given(st.integers(0, 400), st.integers(0, 7), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_whatever_the_library_refuses_is_refused(at: int, bit: int, cut: int) -> None:
    content = bytearray(save({"alpha": torch.ones(3, 2), "beta": torch.zeros(5, dtype=torch.bfloat16)}))
    content[at % len(content)] ^= 1 << bit
    damaged = bytes(content[: len(content) - cut])
    try:
        expected = load(damaged)
    except (SafetensorError, KeyError, ValueError, RuntimeError):
        with pytest.raises(ValueError, match=r"."):
            read(damaged)
        return
    try:
        found = read(damaged)
    except ValueError:
        return  # stricter than the library, about dtypes that are not read here
    assert save(found) == save(expected)


def test_a_file_that_ends_early_is_told() -> None:
    content = save({"a": torch.zeros(7)})
    with pytest.raises(ValueError, match="it is cut short"):
        read_weights(io.BytesIO(content[:-3]), len(content))


@pytest.mark.parametrize("stream_error", [OSError("the disk is gone")])
def test_an_error_of_the_system_is_its_own(stream_error: OSError) -> None:
    class Broken:
        def readinto(self, buffer: memoryview, /) -> int:
            raise stream_error

    with pytest.raises(OSError, match="the disk is gone"):
        read_weights(Broken(), 100)


PARTS = ["a.safetensors", "b.safetensors"]


def index(**weight_map: Any) -> bytes:
    return json.dumps({"weight_map": weight_map}).encode()


@pytest.mark.parametrize(
    ("names", "content", "found"),
    [
        (["model.safetensors"], None, ["model.safetensors"]),
        (["model.safetensors", "a.safetensors"], index(x="a.safetensors"), ["model.safetensors"]),
        (["b.safetensors", "a.safetensors"], index(x="b.safetensors", y="a.safetensors"), PARTS),
        (["a.safetensors", "b.safetensors"], index(x="a.safetensors", y="a.safetensors"), ["a.safetensors"]),
    ],
)  # fmt: skip
def test_the_files_of_weights_are_those_that_the_library_takes(
    names: list[str], content: bytes | None, found: list[str]
) -> None:
    assert weight_files(names, content) == found


REFUSED: list[tuple[bytes | None, str]] = [
    (None, "neither model.safetensors nor"),
    (b"{", "."),
    (b"[]", "has no weight_map"),
    (b"{}", "has no weight_map"),
    (index(), "has no weight_map"),
    (index(x="c.safetensors"), "'c.safetensors', which is not there"),
    (index(x="../a.safetensors"), "which is not there"),
    (index(x=1), "'1', which is not there"),
    (index(x="a.bin"), "'a.bin', which is not there"),
]


@pytest.mark.parametrize(("content", "sentence"), REFUSED)
def test_an_index_that_names_no_files_of_weights_is_refused(content: bytes | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        weight_files(["a.safetensors", "a.bin"], content)


def test_large_weights_take_their_own_size_and_little_more(
    tmp_path: Path, peak_bytes: Callable[[Callable[[], object]], int]
) -> None:
    content = save({"a": torch.zeros(4 << 20), "b": torch.ones(4 << 20)})
    (tmp_path / "w").write_bytes(content)

    def load_it() -> object:
        with (tmp_path / "w").open("rb", buffering=0) as file:
            return read_weights(file, len(content))

    assert peak_bytes(load_it) < 1 << 20  # of Python's own; the tensors are PyTorch's


@pytest.fixture
def peak_bytes() -> Callable[[Callable[[], object]], int]:
    import tracemalloc

    def measure(step: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            step()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
