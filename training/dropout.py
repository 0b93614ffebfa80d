"""Dropout while fitting, for decoder-only families whose config has none: Llama, Qwen and their like.

They are made for more text than a model can learn by heart; interactions of a catalog are less. What is dropped is what
the original Transformer drops: the embedded input, and what each attention and each feed-forward network adds to the
residual stream (Vaswani et al. 2017, §5.4). The model that is saved knows nothing of it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from genrec.errors import RecipeError


@contextmanager
def residual_dropout(model: PreTrainedModel, share: float) -> Iterator[None]:
    """Within it, so many values are zeroed at each of those places while the model is in training mode.

    Raises:
        RecipeError: the model has no decoder layers of attention and feed-forward network.
    """
    with ExitStack() as hooks:
        if share:
            for module in _places(model):
                handle = module.register_forward_hook(_Drop(share))
                hooks.callback(handle.remove)
        yield


def _places(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The input embedding, and of each layer all that adds to the residual stream."""
    layers = getattr(model.get_decoder(), "layers", None)
    adding = [
        module
        for layer in layers or ()
        for name, module in layer.named_children()
        if "norm" not in name and next(module.parameters(), None) is not None
    ]
    if not adding:
        raise RecipeError(
            f"dropout cannot be put into a {model.config.model_type!r} model, whose layers it does not know; set it "
            "to 0, and use the dropout of the model's own config."
        )
    yield model.get_input_embeddings()
    yield from adding


class _Drop:
    """A forward hook; of a tuple, its first value is what the residual stream gets."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(
        self, module: nn.Module, _: object, output: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (functional.dropout(output[0], self.share), *output[1:])
        return functional.dropout(output, self.share)
