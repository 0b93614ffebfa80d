"""CUDA graphs: a whole decode, selection included, recorded once for a shape and then started with a single call.

At the sizes served here a GPU waits for the host: some thousand small kernels, each launched by Python. A graph has the
launches recorded. It works on fixed addresses and shapes, so batches are padded to a few shapes and copied in.

Shapes: R requests, T prompt tokens, E listed nodes.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec.decoding.limits import NOWHERE, Limits
from genrec.decoding.padding import Padded
from genrec.decoding.selection import Frontier

Decode = Callable[[Padded, Limits, int], Frontier]
"""From prompts and limits to the last frontier, without waiting for the device."""

TOKEN_STEP = 64
_SMALLEST_LIST = 64
_MAX_GRAPHS = 64
"""Each keeps its buffers; they share one pool of memory for what is temporary."""


class Capture(Protocol):
    """Records work and gives a way to repeat it."""

    def __call__(self, work: Callable[[], Frontier]) -> tuple[Callable[[], None], Frontier]:
        """Run `work` and record it.

        Returns:
            What repeats it, and its result, which a repetition overwrites in place.
        """
        ...


class CudaCapture:
    """Recording by `torch.cuda.graph`, all graphs in one memory pool."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Frontier]) -> tuple[Callable[[], None], Frontier]:
        """See `Capture`. Two runs first, on a stream of their own, so that libraries allocate what they keep."""
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = work()
        return graph.replay, result


@dataclass(frozen=True, eq=False)
class _Graph:
    """One recorded decode: fill the inputs, replay, read the result."""

    prompts: Padded
    limits: Limits
    replay: Callable[[], None]
    result: Frontier


class Graphs:
    """Decodes by shape, the least recently used forgotten."""

    def __init__(self, capture: Capture) -> None:
        """Nothing is recorded before the first batch of a shape."""
        self._capture = capture
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()

    def run(self, decode: Decode, prompts: Padded, limits: Limits, num_beams: int) -> Frontier:
        """What `decode` gives for the batch, by the graph of its shape."""
        rows = len(prompts.ids)
        prompts, limits = _padded(prompts, limits)
        listed = [0 if part is None else part.shape[1] for part in limits.dead]
        shape = (*prompts.ids.shape, num_beams, limits.tables is not None, *listed)
        graph = self._graphs.pop(shape, None)
        if graph is None:
            replay, result = self._capture(lambda: decode(prompts, limits, num_beams))
            graph = _Graph(prompts, limits, replay, result)
            if len(self._graphs) == _MAX_GRAPHS:
                self._graphs.popitem(last=False)
        else:
            for kept, given in zip(_inputs(graph.prompts, graph.limits), _inputs(prompts, limits), strict=True):
                kept.copy_(given)
        self._graphs[shape] = graph
        graph.replay()
        return graph.result.first(rows)


def _inputs(prompts: Padded, limits: Limits) -> list[Tensor]:
    return [prompts.ids, prompts.mask, limits.slots, *(part for part in limits.dead if part is not None)]


def _padded(prompts: Padded, limits: Limits) -> tuple[Padded, Limits]:
    """The batch with its first request repeated and its prompts and lists lengthened to the next shape."""
    rows, tokens = prompts.ids.shape
    more_rows = _next_power(rows) - rows
    more_tokens = -tokens % TOKEN_STEP

    def repeated(part: Tensor) -> Tensor:
        return torch.cat([part, part[:1].expand(more_rows, *part.shape[1:])]) if more_rows else part.clone()

    lengthened = Padded(
        F.pad(repeated(prompts.ids), (0, more_tokens)), F.pad(repeated(prompts.mask), (0, more_tokens)), ragged=True
    )
    lists = [None if part is None else _lengthened(repeated(part)) for part in limits.dead]
    return lengthened, replace(limits, slots=repeated(limits.slots), dead=lists)


def _lengthened(lists: Tensor) -> Tensor:
    length = max(_next_power(lists.shape[1]), _SMALLEST_LIST)
    # not F.pad: it takes its value as a float, which turns the largest integer into the smallest
    return torch.cat([lists, lists.new_full((len(lists), length - lists.shape[1]), NOWHERE)], dim=1)


def _next_power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def graphs_for(device: torch.device) -> Graphs | None:
    """Graphs where the device has them."""
    return Graphs(CudaCapture()) if device.type == "cuda" else None
