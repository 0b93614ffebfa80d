"""What the beam engine needs of a model: read the prompts once, then one step a level for all beams at once.

Shapes: R requests, W beams, T prompt tokens, I hidden size.
"""

from typing import Protocol, TypeVar

from torch import Tensor

from genrec.decoding.head import Head
from genrec.decoding.padding import Padded


class Progress(Protocol):
    """A batch on its way: what the model remembers of it. Only the decoder that made it looks inside."""

    def rewind(self) -> None:
        """Forget the steps, keep the prompts."""
        ...


ProgressT = TypeVar("ProgressT", bound=Progress)


class Decoder(Protocol[ProgressT]):
    """A model, seen by the search."""

    @property
    def head(self) -> Head:
        """From hidden states to log-probabilities."""
        ...

    def prefill(self, prompts: Padded, num_slots: int) -> tuple[ProgressT, Tensor]:
        """Read the prompts, padded on the right.

        Args:
            prompts: R of them.
            num_slots: the widths of all steps to come, summed.

        Returns:
            What `step` goes on with, and the hidden states ``(R, I)`` that the first level is predicted from.
        """
        ...

    def step(self, progress: ProgressT, tokens: Tensor, parents: Tensor) -> Tensor:
        """Append one token to each beam.

        Args:
            progress: from `prefill`; changed in place.
            tokens: ``(R, W)`` int64 token ids.
            parents: ``(R, W)`` int64, the place of each beam's parent among the beams before (all 0 after `prefill`).

        Returns:
            ``(R * W, I)`` hidden states.
        """
        ...
