"""How many cores the arithmetic of a thread may take."""

import torch


def use_threads(count: int) -> None:
    """Have what the calling thread computes from now on use so many threads of its own.

    PyTorch asks OpenMP, which keeps the number for each thread that starts parallel work; a thread started later takes
    the number set last.
    """
    torch.set_num_threads(count)
