"""Small models of many architectures with weights far enough apart that scores differ, and both engines over them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.beam import BeamEngine
from genrec.decoding.engine import Beam, Query
from genrec.decoding.engines import make_engine
from genrec.decoding.generate import GenerateEngine
from genrec.errors import EngineError
from genrec.trie import ItemTrie

VOCABULARY = 60
FIRST_ITEM_TOKEN = 4
LONGEST_PROMPT = 40
CLOSE = 1e-4
"""How far scores of the two engines may lie apart in float32."""


def _llama_like(make: Callable[..., PreTrainedConfig], **more: Any) -> Callable[[int], PreTrainedConfig]:
    return lambda vocabulary: make(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip


def _t5(**more: Any) -> Callable[[int], PreTrainedConfig]:
    return lambda vocabulary: T5Config(
        vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=48, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **{"num_layers": 2, **more},
    )  # fmt: skip


T5S = {
    "t5": _t5(),
    "t5-gated": _t5(feed_forward_proj="gated-gelu", scale_decoder_outputs=False),
    "t5-untied": _t5(tie_word_embeddings=False, scale_decoder_outputs=False),
    "t5-shallow-decoder": _t5(num_layers=3, num_decoder_layers=1),
    "t5-untied-scaled": _t5(tie_word_embeddings=False, scale_decoder_outputs=True),
}
LLAMAS = {
    "llama": _llama_like(LlamaConfig, tie_word_embeddings=False),
    "llama-biases": _llama_like(LlamaConfig, num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "llama3-rope": _llama_like(
        LlamaConfig,
        num_key_value_heads=1,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "qwen2": _llama_like(Qwen2Config, num_key_value_heads=2),
    "qwen3": _llama_like(Qwen3Config, num_key_value_heads=2, head_dim=16),
    "mistral": _llama_like(MistralConfig, num_key_value_heads=2, sliding_window=LONGEST_PROMPT + 5),
}  # fmt: skip
OTHERS = {
    "phi": _llama_like(PhiConfig),
    "gpt2": lambda vocabulary: GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt-neox": _llama_like(GPTNeoXConfig),
    "gemma2": _llama_like(Gemma2Config, num_key_value_heads=2, head_dim=16, sliding_window=LONGEST_PROMPT + 5),
    "olmo2": _llama_like(Olmo2Config, num_key_value_heads=2),
    "phi3": _llama_like(Phi3Config, num_key_value_heads=2, sliding_window=LONGEST_PROMPT + 5),
    "opt": lambda vocabulary: OPTConfig(
        vocab_size=vocabulary, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32, pad_token_id=0,
    ),
}  # fmt: skip
UNREADABLE = {
    "bloom": lambda vocabulary: BloomConfig(
        vocab_size=vocabulary, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
    "mamba": lambda vocabulary: MambaConfig(vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, pad_token_id=0),
    "mistral-window": _llama_like(MistralConfig, sliding_window=LONGEST_PROMPT),
    "gemma2-window": _llama_like(Gemma2Config, head_dim=16, sliding_window=8),
    "t5-swish": _t5(feed_forward_proj="swish"),
}
CONFIGS: dict[str, Callable[[int], PreTrainedConfig]] = {**T5S, **LLAMAS, **OTHERS, **UNREADABLE}


def small_model(
    name: str, vocabulary: int = VOCABULARY, *, seed: int = 0, dtype: torch.dtype = torch.float32, std: float = 0.3
) -> PreTrainedModel:
    """A model with random weights and an empty generation config, as `genrec.models.load_model` leaves it."""
    config = CONFIGS[name](vocabulary)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(seed)
    model: PreTrainedModel = auto.from_config(config, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, std)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype)


def prefix_of(model: PreTrainedModel) -> tuple[int, ...]:
    return (0,) if model.config.is_encoder_decoder else ()


def beam_engine(model: PreTrainedModel, trie: ItemTrie, penalty: float = 1.0, prefix: Sequence[int] = ()) -> BeamEngine:
    engine = _engine("beam", model, trie, penalty, prefix)
    assert isinstance(engine, BeamEngine)
    return engine


def generate_engine(
    model: PreTrainedModel, trie: ItemTrie, penalty: float = 1.0, prefix: Sequence[int] = ()
) -> GenerateEngine:
    engine = _engine("generate", model, trie, penalty, prefix)
    assert isinstance(engine, GenerateEngine)
    return engine


def _engine(name: str, model: PreTrainedModel, trie: ItemTrie, penalty: float, prefix: Sequence[int]) -> Any:
    return make_engine(
        name,
        model,
        trie,
        decoder_prefix_ids=tuple(prefix) or prefix_of(model),
        length_penalty=penalty,
        longest_prompt=LONGEST_PROMPT,
    )


def random_trie(num_items: int, sizes: Sequence[int], *, seed: int = 0, stride: int = 1) -> ItemTrie:
    """Distinct random paths. Level after level has its own tokens; a stride leaves gaps between them."""
    flat = np.sort(np.random.default_rng(seed).choice(int(np.prod(sizes)), num_items, replace=False))
    codes = np.stack(np.unravel_index(flat, tuple(sizes)), axis=1)
    first = FIRST_ITEM_TOKEN + stride * np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return ItemTrie.from_sorted((first + stride * codes).astype(np.int32))


def everything(trie: ItemTrie, excluded: Sequence[int] = ()) -> AllowedItems:
    return AllowedItems.all_but(excluded, ItemMask.everything(trie.num_items))


def only(allowed: np.ndarray, excluded: Sequence[int] = ()) -> AllowedItems:
    return AllowedItems.all_but(excluded, ItemMask(allowed))


def prompts(lengths: Sequence[int], vocabulary: int = VOCABULARY, seed: int = 1) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_ITEM_TOKEN, vocabulary, length).tolist() for length in lengths]


def found(outcome: Beam | EngineError) -> Beam:
    """The beam, or the error raised."""
    if isinstance(outcome, EngineError):
        raise outcome
    return outcome


def assert_agree(
    one: Beam | EngineError, other: Beam | EngineError, trie: ItemTrie, allowed: AllowedItems, close: float = CLOSE
) -> None:
    """The same items up to ties, scores, probabilities and bound, none of them illegal."""
    first, second = found(one), found(other)
    assert len(first.rows) == len(second.rows)
    np.testing.assert_allclose(first.scores, second.scores, atol=close, rtol=0)
    np.testing.assert_allclose(first.bound, second.bound, atol=close, rtol=0)
    place_of = {row: place for place, row in enumerate(second.rows.tolist())}
    for place, row in enumerate(first.rows.tolist()):
        if (there := place_of.get(row)) is None:  # it tied with the last one
            assert abs(first.scores[place] - second.scores[-1]) <= close
        else:
            assert abs(first.scores[place] - second.scores[there]) <= close
            distance = abs(first.log_probabilities[place] - second.log_probabilities[there])
            assert distance <= close * trie.num_levels
    assert len(allowed.select(first.rows)) == len(first.rows)


def assert_engines_agree(
    beam: BeamEngine, generate: GenerateEngine, queries: Sequence[Query], num_beams: int, close: float = CLOSE
) -> None:
    ours, theirs = beam.search(queries, num_beams), generate.search(queries, num_beams)
    for query, one, other in zip(queries, ours, theirs, strict=True):
        assert_agree(one, other, generate.trie, query.allowed, close)
        assert len(found(one).rows) == min(num_beams, len(query.allowed))
