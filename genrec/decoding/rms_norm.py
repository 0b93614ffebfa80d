"""Root mean square layer normalisation (Zhang and Sennrich 2019, arXiv:1910.07467), the one norm of T5 and Llama."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor


class RmsNorm:
    """A module's norm, by PyTorch's own operator."""

    def __init__(self, module: Any) -> None:
        """Shares the module's weight."""
        self._weight: Tensor = module.weight.detach()
        self._epsilon: float = module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` of any shape, normalised over its last dimension."""
        return F.rms_norm(x, self._weight.shape, self._weight, self._epsilon)
