"""Tiny base models of each family that ties its matrices in a way of its own, as checkpoints on disk."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from genrec.history import HistoryEncoder, Prompt
from genrec.item_tokens import ItemTokens
from genrec.models import Architecture
from training.base_model import bare_tokenizer, load_base
from training.examples import Collator
from training.proof import proving_examples
from training.recipe_model import Lora, Model
from training.vocabulary import (
    extend,
    load_trainable,
    read_item_tokens_of,
    save_checkpoint,
    spread,
)

TIED = ("qwen2", "qwen3", "t5")
UNTIED = ("llama", "t5-v1.1")
FAMILIES = (*TIED, *UNTIED)

SIZES = (4, 3, 2)
WORDS = 40
"""Words of the base vocabulary beside the four special tokens."""

PADDED = 64
"""Rows of the matrices of a base that is padded, as Qwen's are."""

_DECODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3,
}  # fmt: skip
_T5 = {
    "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def architecture_of(family: str) -> Architecture:
    return "seq2seq" if family.startswith("t5") else "causal"


def tokenizer() -> PreTrainedTokenizerBase:
    words = bare_tokenizer()
    words.add_tokens([f"word{number}" for number in range(WORDS)])
    return words


def write_base(family: str, path: Path, rows: int | None = None) -> Path:
    """A checkpoint as one finds it: random weights, and item tokens unknown to it."""
    words = tokenizer()
    rows = rows or len(words)
    torch.manual_seed(0)
    model = _random_model(family, rows)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    if family == "t5-v1.1":
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn(rows, 16))
    model.save_pretrained(path)
    words.save_pretrained(path)
    if family == "t5-v1.1":  # as version 4 of transformers wrote it; version 5 reads "tied" whatever stands there
        config = json.loads((path / "config.json").read_text())
        del config["scale_decoder_outputs"]
        (path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return path


def _random_model(family: str, rows: int) -> PreTrainedModel:
    match family:
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**_DECODER, vocab_size=rows, tie_word_embeddings=True))
        case "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**_DECODER, vocab_size=rows, tie_word_embeddings=True))
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**_DECODER, vocab_size=rows, tie_word_embeddings=False))
        case "t5":
            return T5ForConditionalGeneration(T5Config(**_T5, vocab_size=rows))
    return T5ForConditionalGeneration(T5Config(**_T5, vocab_size=rows, feed_forward_proj="gated-gelu"))


def base_of(family: str, path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_base(Model(architecture=architecture_of(family), checkpoint=str(path)))


@dataclass(frozen=True, eq=False)
class Grown:
    """A base whose vocabulary holds item tokens, on disk, and items that use them all."""

    family: str
    path: Path
    tokens: ItemTokens
    encoder: HistoryEncoder

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.family)

    @property
    def token_ids(self) -> list[int]:
        return np.unique(self.encoder.paths).tolist()

    def load(self) -> PreTrainedModel:
        return load_trainable(self.path, self.architecture)


def write_grown(family: str, root: Path, base: Path | None = None) -> Grown:
    torch.manual_seed(1)
    model, words = base_of(family, base or write_base(family, root / "base"))
    spread(model, extend(model, words, SIZES))
    save_checkpoint(model, words, root / "grown")
    tokens = read_item_tokens_of(words, SIZES)
    codes = np.stack(np.unravel_index(np.arange(int(np.prod(SIZES))), SIZES), axis=1).astype(np.int32)
    prompt = Prompt(prefix_ids=(3,), max_history_items=5)
    return Grown(family, root / "grown", tokens, HistoryEncoder(prompt, tokens.paths(codes)))


LORA = Lora(r=2, lora_alpha=4)


def train(model: PreTrainedModel, grown: Grown) -> None:
    """A few steps, large enough that a model without them would be found out."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.05)
    examples = proving_examples(grown.encoder, grown.architecture)
    batch = Collator()([examples[index] for index in range(len(examples))])
    for _ in range(4):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
