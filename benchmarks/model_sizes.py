"""Models of the sizes people serve, with random weights: what a size costs does not depend on what it has learnt."""

from dataclasses import dataclass

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

NUM_LEVELS = 4
NUM_CODES = 256


@dataclass(frozen=True)
class ModelSize:
    """One size.

    Attributes:
        base_vocabulary: tokens before the item tokens.
        kind: seq2seq or causal.
    """

    name: str
    base_vocabulary: int
    kind: str

    @property
    def vocabulary(self) -> int:
        """With the item tokens of four levels of 256 codes."""
        return self.base_vocabulary + NUM_LEVELS * NUM_CODES

    @property
    def decoder_prefix_ids(self) -> tuple[int, ...]:
        """What the decoder starts with."""
        return (0,) if self.kind == "seq2seq" else ()

    def build(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """A model of this size."""
        torch.manual_seed(0)
        model = _BUILDERS[self.name](self.vocabulary).to(device=device, dtype=dtype).eval()
        model.generation_config = GenerationConfig()
        return model


def _t5(vocabulary: int, **shape: int) -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary,
            dropout_rate=0.0,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            **shape,
        )
    )


def _tiger(vocabulary: int) -> PreTrainedModel:
    return _t5(vocabulary, d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_heads=6)


def _t5_small(vocabulary: int) -> PreTrainedModel:
    return _t5(vocabulary, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8)


def _smollm2(vocabulary: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            pad_token_id=0,
        )
    )


def _qwen25(vocabulary: int) -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            pad_token_id=0,
        )
    )


_BUILDERS = {"tiger": _tiger, "t5-small": _t5_small, "smollm2-135m": _smollm2, "qwen2.5-0.5b": _qwen25}

SIZES = (
    ModelSize("tiger", 4, "seq2seq"),
    ModelSize("t5-small", 32_100, "seq2seq"),
    ModelSize("smollm2-135m", 49_152, "causal"),
    ModelSize("qwen2.5-0.5b", 151_936, "causal"),
)
