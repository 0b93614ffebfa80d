"""Llama and its kin (Qwen2, Qwen3, SmolLM2, Mistral) as a decoder: the prompt once, then W beams over its cache.

The arithmetic is that of transformers' `modeling_llama`, with products stacked and rotations done for queries and keys
at once.

Shapes: R requests, W beams, T prompt tokens, S slots, H heads, G key-value heads, D head size, I hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from genrec.decoding.beam_cache import BeamCache
from genrec.decoding.head import Head
from genrec.decoding.linear import Activation, linear
from genrec.decoding.padding import Padded
from genrec.decoding.rms_norm import RmsNorm

MODEL_TYPES = frozenset({"llama", "qwen2", "qwen3", "mistral"})

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip


def reads(model: PreTrainedModel) -> bool:
    """Whether this decoder does what the model does: a known type, rotations that do not depend on the length."""
    config: Any = model.config
    return bool(
        config.model_type in MODEL_TYPES
        and not any("sliding" in kind for kind in getattr(config, "layer_types", None) or ())
        and not getattr(config, "use_sliding_window", False)
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")
        and config.hidden_act in _ACTIVATIONS
    )


@dataclass
class LlamaProgress:
    """What a batch remembers.

    Attributes:
        cache: of the prompts and the beams' tokens.
        lengths: ``(R, 1)`` int64, of the prompts.
        positions: ``(R, 1)`` int64, of the next token.
    """

    cache: BeamCache
    lengths: Tensor
    positions: Tensor

    def rewind(self) -> None:
        """See `Progress`."""
        self.cache.rewind()
        self.positions = self.lengths


class _Layer:
    def __init__(self, layer: Any, activation: Activation) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.norm = RmsNorm(layer.input_layernorm)
        self.qkv = linear(attention.q_proj, attention.k_proj, attention.v_proj, after=self.norm)
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]  # Qwen3 has them
        self.head_norms = [RmsNorm(norm) for norm in norms if norm is not None]
        self.out = linear(attention.o_proj)
        self._mlp_norm = RmsNorm(layer.post_attention_layernorm)
        self._gate, self._up = (linear(part, after=self._mlp_norm) for part in (mlp.gate_proj, mlp.up_proj))
        self._down = linear(mlp.down_proj)
        self._activation = activation

    def feed_forward(self, x: Tensor) -> Tensor:
        normed = self._mlp_norm(x)
        return self._down.plus(self._up.times(normed, self._gate.activated(normed, self._activation)), x)


class LlamaDecoder:
    """A Llama-style model.

    Attributes:
        head: see `Decoder`.
    """

    def __init__(self, model: PreTrainedModel, levels: Sequence[Tensor]) -> None:
        """Stack and pack the weights.

        Args:
            model: one that `reads` accepts, in eval mode.
            levels: for each level its token ids, as `Head` takes them.
        """
        config: Any = model.config
        body: Any = model.model
        attention = body.layers[0].self_attn
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_size, self._scale = attention.head_dim, attention.scaling
        self._embed: Tensor = body.embed_tokens.weight.detach()
        self._rotary = body.rotary_emb
        self._layers = [_Layer(layer, _ACTIVATIONS[config.hidden_act]) for layer in body.layers]
        self._norm = RmsNorm(body.norm)
        output: Any = model.get_output_embeddings()
        self.head = Head(linear(output, after=self._norm), output.out_features, levels)

    def prefill(self, prompts: Padded, num_slots: int) -> tuple[LlamaProgress, Tensor]:
        """See `Decoder`."""
        rows, length = prompts.ids.shape
        hidden = F.embedding(prompts.ids.flatten(), self._embed)
        padding = hidden.new_zeros(rows, length)
        if prompts.ragged:
            padding.masked_fill_(prompts.mask == 0, -torch.inf)
        cache = BeamCache.allocate(len(self._layers), padding, num_slots, self._kv_heads, self._head_size)
        lengths = prompts.mask.sum(dim=1, keepdim=True)
        progress = LlamaProgress(cache, lengths, lengths)
        positions = torch.arange(length, device=hidden.device)[None]
        # Padding is on the right, where no token looks: the causal mask alone is enough.
        hidden = self._layers_over(progress.cache, hidden, positions, mask=None)
        last = hidden.view(rows, length, -1).gather(1, (lengths - 1)[:, :, None].expand(-1, -1, hidden.shape[1]))
        return progress, self._norm(last.squeeze(1))

    def step(self, progress: LlamaProgress, tokens: Tensor, parents: Tensor) -> Tensor:
        """See `Decoder`."""
        progress.cache.branch(parents)
        hidden = F.embedding(tokens.flatten(), self._embed)
        hidden = self._layers_over(progress.cache, hidden, progress.positions, progress.cache.mask[:, None])
        progress.positions = progress.positions + 1
        return self._norm(hidden)

    def _layers_over(self, cache: BeamCache, hidden: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """All layers over new tokens, ``(R * W, I)``; without a mask they are prompts and see what is before them."""
        rows = cache.mask.shape[0]
        width = hidden.shape[0] // rows
        cosine, sine = self._rotary(hidden, positions)
        # x * cos + rotate_half(x) * sin, where rotate_half is a roll by half with the first half negated
        sine = torch.cat([-sine[..., : self._head_size // 2], sine[..., self._head_size // 2 :]], dim=-1)
        cosine, sine = cosine[:, :, None], sine[:, :, None]
        for index, layer in enumerate(self._layers):
            heads = layer.qkv(layer.norm(hidden)).view(rows, width, -1, self._head_size)
            turned, both = heads[:, :, : self._heads + self._kv_heads], heads[:, :, self._heads :]
            if layer.head_norms:
                parts = torch.split(turned, [self._heads, self._kv_heads], dim=2)
                for norm, part in zip(layer.head_norms, parts, strict=True):
                    part.copy_(norm.whole(part))
            rolled = turned.roll(self._head_size // 2, dims=-1)
            turned.mul_(cosine).addcmul_(rolled, sine)
            cache.write(index, both.view(rows, width, 2, self._kv_heads, self._head_size))
            queries = heads[:, :, : self._heads].transpose(1, 2)
            keys, values = cache.read(index, width)
            seen = self._attend(queries, keys, values, mask)
            hidden = layer.feed_forward(layer.out.plus(seen, hidden))
        cache.filled += width
        return hidden

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """``(R * W, H * D)``."""
        seen = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=self._scale,
            enable_gqa=self._heads != self._kv_heads,
        )  # fmt: skip
        return seen.transpose(1, 2).reshape(queries.shape[0] * queries.shape[2], -1)
