"""What PyTorch raises when the machine fails, in the words of our own errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genrec.errors import EngineLost, OutOfMemory

_CPU_ALLOCATOR = "DefaultCPUAllocator"
"""How PyTorch's allocator on the CPU begins to say that it has no memory: a plain RuntimeError."""


@contextmanager
def named_faults() -> Iterator[None]:
    """Within it, a lack of memory and a lost device have names.

    Raises:
        OutOfMemory: there was no memory for it; what CUDA kept in reserve has been given back.
        EngineLost: a kernel failed. The process cannot use the device again.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own
            torch.cuda.empty_cache()
        raise OutOfMemory("there is not enough memory for what was asked at once.") from error
    except torch.AcceleratorError as error:
        raise EngineLost("a kernel of the device failed; this process cannot use it again.") from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        raise OutOfMemory("there is not enough memory for what was asked at once.") from error
