"""What PyTorch raises has names of ours, and only what it means has them."""

import pytest
import torch

from genrec.decoding.faults import named_faults
from genrec.errors import EngineLost, InvalidOutput, OutOfMemory


@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_is_one_and_says_nothing_of_the_machine(raised: Exception) -> None:
    with pytest.raises(OutOfMemory) as caught, named_faults():
        raise raised
    assert caught.value.__cause__ is raised
    assert not any(word in str(caught.value) for word in ("CUDA", "GiB", "cpp"))


def test_what_the_cpu_really_raises_is_among_them() -> None:
    with pytest.raises(OutOfMemory), named_faults():
        torch.empty(2**55, dtype=torch.uint8)


def test_a_kernel_that_failed_has_lost_the_device() -> None:
    with pytest.raises(EngineLost), named_faults():
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("raised", [RuntimeError("shape"), ValueError("x"), InvalidOutput("nan"), SystemExit(3)])
def test_everything_else_passes_as_it_is(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, named_faults():
        raise raised
    assert caught.value is raised


def test_nothing_happens_where_nothing_fails() -> None:
    with named_faults():
        done = True
    assert done
