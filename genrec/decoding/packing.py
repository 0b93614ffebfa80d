"""Whether weights are prepacked, and what hangs on it."""

import torch
from torch import Tensor


def packs(weight: Tensor) -> bool:
    """Whether products with `weight` are done by oneDNN from a packed copy: on CPU, in float32, where the build can."""
    can = bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return can and weight.device.type == "cpu" and weight.dtype == torch.float32
