"""T5 as a decoder: the encoder once, its keys and values once, then W beams as queries over both.

The arithmetic is that of transformers' `modeling_t5`, with products stacked and one mask a step for all layers.

Shapes: R requests, W beams, T prompt tokens, S slots, H heads, D head size, I hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Stack

from genrec.decoding.beam_cache import BeamCache
from genrec.decoding.head import Head
from genrec.decoding.linear import Activation, linear
from genrec.decoding.padding import Padded
from genrec.decoding.rms_norm import RmsNorm
from genrec.model_inputs import NO_INPUTS, ModelInputs

_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "silu": "silu"}


def reads(model: PreTrainedModel) -> bool:
    """Whether this decoder can do what the model does: T5, or a subclass of it, with a known activation.

    In float16 transformers keeps one product of each layer in float32 and clamps what overflows; this decoder does not.
    """
    if not isinstance(model, T5ForConditionalGeneration) or type(model.decoder) is not T5Stack:
        return False
    return model.config.dense_act_fn in _ACTIVATIONS and model.dtype != torch.float16


def is_plain(model: PreTrainedModel) -> bool:
    """Whether the model is T5 itself. What a subclass does after its decoder nobody knows; it has to prove itself."""
    return type(model) is T5ForConditionalGeneration


@dataclass
class T5Progress:
    """What a batch remembers.

    Attributes:
        cache: of the decoder's own tokens.
        cross: for each layer the encoder's keys and values, each ``(R, H, T, D)``.
        cross_mask: ``(R, 1, 1, T)``, None if no prompt is padded.
        positions: ``(S,)`` int64, where in its sequence each filled slot stands.
    """

    cache: BeamCache
    cross: Sequence[tuple[Tensor, Tensor]]
    cross_mask: Tensor | None
    positions: Tensor

    def rewind(self) -> None:
        """See `Progress`."""
        self.cache.rewind()
        self.positions = self.positions[: self.cache.filled]


class _FeedForward:
    def __init__(self, layer: Any, config: Any) -> None:
        dense = layer.DenseReluDense
        self._norm = RmsNorm(layer.layer_norm)
        self._activation = _ACTIVATIONS[config.dense_act_fn]
        self._gated = config.is_gated_act
        self._inner = linear(dense.wi_0 if self._gated else dense.wi, after=self._norm)
        self._factor = linear(dense.wi_1, after=self._norm) if self._gated else None
        self._outer = linear(dense.wo)

    def __call__(self, x: Tensor) -> Tensor:
        normed = self._norm(x)
        inner = self._inner.activated(normed, self._activation)
        if self._factor is not None:
            inner = self._factor.times(normed, inner)
        return self._outer.plus(inner, x)


class _SelfAttention:
    def __init__(self, layer: Any) -> None:
        attention = layer.SelfAttention
        self.norm = RmsNorm(layer.layer_norm)
        self.qkv = linear(attention.q, attention.k, attention.v, after=self.norm)
        self.out = linear(attention.o)


class _CrossAttention:
    def __init__(self, layer: Any) -> None:
        self.norm = RmsNorm(layer.layer_norm)
        self.q = linear(layer.EncDecAttention.q, after=self.norm)
        self.out = linear(layer.EncDecAttention.o)


class _StackedEncoder:
    """T5's encoder, its weights stacked and packed."""

    def __init__(self, encoder: Any) -> None:
        config = encoder.config
        self._num_heads, self._head_size = config.num_heads, config.d_kv
        self._embed = encoder.embed_tokens.weight.detach()
        self._bias = _PositionBias(encoder.block[0].layer[0].SelfAttention, bidirectional=True)
        self._layers = [(_SelfAttention(b.layer[0]), _FeedForward(b.layer[1], config)) for b in encoder.block]
        self.norm = RmsNorm(encoder.final_layer_norm)

    def __call__(self, prompts: Padded, padding: Tensor | None) -> Tensor:
        rows, length = prompts.ids.shape
        hidden = F.embedding(prompts.ids.flatten(), self._embed)
        mask = self._bias.square(length) if padding is None else self._bias.square(length) + padding
        for attention, feed_forward in self._layers:
            qkv = attention.qkv(attention.norm(hidden)).view(rows, length, 3, self._num_heads, self._head_size)
            queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            hidden = feed_forward(attention.out.plus(_attend(queries, keys, values, mask), hidden))
        return self.norm(hidden)


class _OwnEncoder:
    """The encoder of a subclass, through its own `forward`, with the inputs that it takes."""

    norm = None  # nothing of it is left over

    def __init__(self, encoder: Any, inputs: ModelInputs) -> None:
        self._encoder = encoder
        self._inputs = inputs

    def __call__(self, prompts: Padded, padding: Tensor | None) -> Tensor:
        extra = self._inputs(prompts.ids, prompts.mask)
        mask = None if padding is None else prompts.mask
        hidden: Tensor = self._encoder(input_ids=prompts.ids, attention_mask=mask, **extra).last_hidden_state
        return hidden.flatten(0, 1)


class T5Decoder:
    """A T5 model, of any size and either kind of feed-forward layer, with its own encoder or that of a subclass.

    Attributes:
        head: see `Decoder`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        decoder_prefix_ids: Sequence[int],
        levels: Sequence[Tensor],
        inputs: ModelInputs = NO_INPUTS,
    ) -> None:
        """Stack and pack the weights.

        Args:
            model: one that `reads` accepts, in eval mode.
            decoder_prefix_ids: what the decoder starts with.
            levels: for each level its token ids, as `Head` takes them.
            inputs: what its encoder takes beside ids and mask.
        """
        config: Any = model.config
        decoder: Any = model.decoder
        self._num_heads, self._head_size = config.num_heads, config.d_kv
        self._prefix = torch.tensor([list(decoder_prefix_ids)], device=model.device)
        self._embed = decoder.embed_tokens.weight.detach()
        self._decoder_bias = _PositionBias(
            decoder.block[0].layer[0].SelfAttention, bidirectional=False, reach=len(decoder_prefix_ids) + len(levels)
        )
        self._encoder = _StackedEncoder(model.encoder) if is_plain(model) else _OwnEncoder(model.encoder, inputs)
        self._decoder = [
            (_SelfAttention(b.layer[0]), _CrossAttention(b.layer[1]), _FeedForward(b.layer[2], config))
            for b in decoder.block
        ]
        self._norm = RmsNorm(decoder.final_layer_norm)
        cross = [b.layer[1].EncDecAttention for b in decoder.block]
        self._cross_kv = linear(*(part for layer in cross for part in (layer.k, layer.v)), after=self._encoder.norm)
        output: Any = model.get_output_embeddings()
        scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)  # older releases have one flag
        scale = config.d_model**-0.5 if scaled else 1.0
        self.head = Head(linear(output, after=self._norm), output.out_features, levels, scale)

    def prefill(self, prompts: Padded, num_slots: int) -> tuple[T5Progress, Tensor]:
        """See `Decoder`."""
        rows, length = prompts.ids.shape
        encoded, padding = self._encode(prompts)
        kv = self._cross_kv(encoded).view(rows, length, len(self._decoder), 2, self._num_heads, self._head_size)
        cross = [(layer[0], layer[1]) for layer in kv.permute(2, 3, 0, 4, 1, 5)]
        prefix = self._prefix.expand(rows, -1)
        width = prefix.shape[1]
        cache = BeamCache.allocate(
            len(self._decoder), encoded.new_zeros(rows, width), num_slots, self._num_heads, self._head_size
        )
        progress = T5Progress(cache, cross, padding, torch.arange(width, device=encoded.device))
        causal = encoded.new_full((width, width), -torch.inf).triu_(1)
        hidden = self._decode(progress, prefix, causal + self._decoder_bias.square(width))
        return progress, hidden.view(rows, width, -1)[:, -1]

    def step(self, progress: T5Progress, tokens: Tensor, parents: Tensor) -> Tensor:
        """See `Decoder`."""
        progress.cache.branch(parents)
        position = progress.positions[-1:] + 1
        progress.positions = torch.cat([progress.positions, position.expand(tokens.shape[1])])
        mask = progress.cache.mask[:, None] + self._decoder_bias.of(progress.positions - position)[:, None]
        return self._decode(progress, tokens, mask)

    def _encode(self, prompts: Padded) -> tuple[Tensor, Tensor | None]:
        """``(R * T, I)`` hidden states, and the mask of the padding."""
        padding = None
        if prompts.ragged:
            rows, length = prompts.ids.shape
            padding = self._embed.new_zeros(rows, length).masked_fill_(prompts.mask == 0, -torch.inf)[:, None, None]
        return self._encoder(prompts, padding), padding

    def _decode(self, progress: T5Progress, tokens: Tensor, mask: Tensor) -> Tensor:
        rows, width = tokens.shape
        hidden = F.embedding(tokens.flatten(), self._embed)
        for layer, (attention, cross, feed_forward) in enumerate(self._decoder):
            qkv = attention.qkv(attention.norm(hidden)).view(rows, width, 3, self._num_heads, self._head_size)
            progress.cache.write(layer, qkv[:, :, 1:])
            seen = _attend(qkv[:, :, 0].transpose(1, 2), *progress.cache.read(layer, width), mask)
            hidden = attention.out.plus(seen, hidden)
            queries = cross.q(cross.norm(hidden)).view(rows, width, self._num_heads, self._head_size).transpose(1, 2)
            hidden = cross.out.plus(_attend(queries, *progress.cross[layer], progress.cross_mask), hidden)
            hidden = feed_forward(hidden)
        progress.cache.filled += width
        return self._norm(hidden)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """``(R * W, H * D)``. T5 does not scale the products."""
    seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
    return seen.transpose(1, 2).reshape(queries.shape[0] * queries.shape[2], -1)


class _PositionBias:
    """T5's learned bias by distance, of the first layer for all of them. The table grows with the longest prompt."""

    def __init__(self, attention: Any, *, bidirectional: bool, reach: int = 1) -> None:
        self._weight: Tensor = attention.relative_attention_bias.weight.detach()
        self._bucket: Callable[[Tensor], Tensor] = partial(
            attention._relative_position_bucket,
            bidirectional=bidirectional,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        self._reach = 0
        self._tables: list[Tensor] = []  # all of them: a CUDA graph reads the one it was recorded with
        self._grow(reach)

    def of(self, distances: Tensor) -> Tensor:
        """``(H, n)`` for key position minus query position, ``(n,)``, within reach or the longest square asked for."""
        return self._table[:, distances + self._reach]

    def square(self, length: int) -> Tensor:
        """``(1, H, length, length)`` between all positions of a sequence."""
        self._grow(length)
        # row i, column j is the distance j - i: windows of the row of distances, the last window first
        windows = self._table[:, self._reach - length + 1 : self._reach + length].unfold(1, length, 1)
        return windows.flip(1)[None]  # with fewer dimensions PyTorch takes its slow path of attention

    def _grow(self, reach: int) -> None:
        if reach > self._reach:
            self._reach = reach
            distances = torch.arange(-reach, reach + 1, device=self._weight.device)
            self._table = self._weight[self._bucket(distances)].T.contiguous()
            self._tables.append(self._table)
