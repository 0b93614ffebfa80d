"""How fast a cell could be at all: the work it must do, over what this machine does at its best.

The cost model is that of a decoder which reads each prompt once, keeps one copy of it for all beams, and normalises
over the full vocabulary. A phase takes at least the larger of its arithmetic at the peak rate and its bytes at the peak
bandwidth.

Notation: R requests, B beams, T prompt tokens, L levels, V vocabulary, I hidden size, H·D attention width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from benchmarks.model_sizes import NUM_LEVELS
from genrec.decoding.linear import linear


@dataclass(frozen=True)
class Peak:
    """What the machine does at its best.

    Attributes:
        flops: of a large matrix product, a second.
        bytes: read from memory, a second.
    """

    flops: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """What a phase must do."""

    flops: float
    bytes: float

    def seconds(self, peak: Peak) -> float:
        """The least time it can take."""
        return max(self.flops / peak.flops, self.bytes / peak.bytes)


@torch.inference_mode()
def measure_peak(device: str, dtype: torch.dtype) -> Peak:
    """Best of several large products and reads."""
    rows, width = (1_024, 2_048) if device == "cpu" else (8_192, 8_192)
    product = linear(torch.nn.Linear(width, width, bias=False, device=device, dtype=dtype))
    x = torch.randn(rows, width, device=device, dtype=dtype)
    memory = torch.ones((256 if device == "cpu" else 4_096) << 20, dtype=torch.uint8, device=device).view(torch.int64)
    flops = 2 * rows * width * width / best_seconds(lambda: product(x), device)
    return Peak(flops, memory.nbytes / best_seconds(lambda: memory.sum(), device))


def best_seconds(work: Callable[[], object], device: str, repetitions: int = 10) -> float:
    """The least disturbed of several runs, after one to warm up."""
    best = float("inf")
    for repetition in range(repetitions + 1):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        if repetition:
            best = min(best, time.perf_counter() - start)
    return best


def ours(model: PreTrainedModel, requests: int, beams: int, tokens: int) -> tuple[Work, Work]:
    """Prefill (with the first level) and the remaining steps of our engine."""
    size = next(model.parameters()).element_size()
    config: Any = model.config
    vocabulary, hidden = model.get_output_embeddings().weight.shape
    head = 2.0 * vocabulary * hidden
    head_bytes = size * vocabulary * hidden
    rows = requests * beams
    later = NUM_LEVELS - 1
    if config.is_encoder_decoder:
        width, layers = config.num_heads * config.d_kv, config.num_decoder_layers
        encoder = _matrices(model.encoder)
        cross = 2 * layers * hidden * width
        step = _matrices(model.decoder) - cross
        prompt = 2.0 * (encoder + cross) * tokens + 4.0 * tokens**2 * width * config.num_layers
        row = 2.0 * step + 4.0 * (tokens + NUM_LEVELS) * width * layers + head
        memory = requests * 2 * tokens * width * layers * size
        prefill = Work(requests * (prompt + row), size * (encoder + cross + step) + head_bytes + memory)
    else:
        width, layers = config.num_attention_heads * _head_size(config), config.num_hidden_layers
        step = _matrices(model.model)
        prompt = 2.0 * step * tokens + 2.0 * tokens**2 * width * layers
        row = 2.0 * step + 4.0 * (tokens + NUM_LEVELS) * width * layers + head
        memory = requests * 2 * tokens * config.num_key_value_heads * _head_size(config) * layers * size
        prefill = Work(requests * (prompt + head), size * step + head_bytes + memory)
    steps = Work(later * rows * row, later * (size * step + head_bytes + memory))
    return prefill, steps


def of_generate(model: PreTrainedModel, requests: int, beams: int, tokens: int) -> Work:
    """What `generate` spends: the prompt's keys and values made, kept and copied for every beam.

    `bytes` is what these take, twice while they are copied.
    """
    config: Any = model.config
    prefill, steps = ours(model, requests, beams, tokens)
    if config.is_encoder_decoder:
        width = config.num_heads * config.d_kv
        copies = requests * beams * tokens * 2 * width * config.num_decoder_layers
        flops = prefill.flops + steps.flops * NUM_LEVELS / (NUM_LEVELS - 1) + 2.0 * copies * config.d_model
    else:
        width = config.num_key_value_heads * _head_size(config)
        copies = requests * beams * tokens * 2 * width * config.num_hidden_layers
        flops = prefill.flops * beams + steps.flops
    return Work(flops, 2.0 * copies * next(model.parameters()).element_size())


def _matrices(module: torch.nn.Module) -> int:
    """Weights that every token is multiplied by: all matrices but the embeddings."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, torch.nn.Linear))


def _head_size(config: PreTrainedConfig) -> int:
    size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size
