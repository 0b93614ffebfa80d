"""Checkpoints as transformers alone trains them: a tokenizer, a model and the Trainer, and nothing of ours.

What a user brings who followed a tutorial: item tokens by `add_tokens`, histories as text through the tokenizer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)

WORDS = ["<pad>", "</s>", "<unk>", "<s>", "user", "bought", "then"]
LEVELS, CODES = "abcd", 256
MAX_ITEMS = 10

PROMPTS: Mapping[str, Mapping[str, object]] = {
    "seq2seq": {"suffix": ["</s>"], "max_history_items": MAX_ITEMS},
    "causal": {
        "prefix": ["<s>", "user", "bought"],
        "separator": [6],
        "suffix": ["then"],
        "max_history_items": MAX_ITEMS,
    },
}
"""How each was asked in training, in the words of our prompt file; 6 is the id of "then"."""


def text_of(architecture: str, history: Sequence[str]) -> str:
    """A history of items, each spelled as its tokens, as these models read it."""
    newest = history[-MAX_ITEMS:]
    if architecture == "seq2seq":
        return "".join(newest) + "</s>"
    return "<s> user bought " + " then ".join(newest) + " then"


def train_foreign(architecture: str, sequences: Sequence[Sequence[str]], path: Path, steps: int) -> None:
    """Train a tiny T5 or Llama on sequences of spelled items, and save it with its tokenizer."""
    set_seed(7)
    tokenizer = _tokenizer()
    added = tokenizer.add_tokens([f"<{level}_{code}>" for level in LEVELS for code in range(CODES)])
    assert added == len(LEVELS) * CODES
    model = _model(architecture, len(tokenizer))
    Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(path / "run"), max_steps=steps, per_device_train_batch_size=32, learning_rate=3e-3,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        ),
        train_dataset=[_example(architecture, tokenizer, sequence) for sequence in sequences],
        data_collator=_pad,
        processing_class=tokenizer,
    ).train()  # fmt: skip
    model.config.use_cache = True
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def _model(architecture: str, vocab_size: int) -> PreTrainedModel:
    ids = {"vocab_size": vocab_size, "pad_token_id": 0, "eos_token_id": 1}
    if architecture == "seq2seq":
        return T5ForConditionalGeneration(
            T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0, **ids)
        )
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, bos_token_id=3,
            max_position_embeddings=256, **ids,
        )
    )  # fmt: skip


def _example(architecture: str, tokenizer: PreTrainedTokenizerFast, sequence: Sequence[str]) -> dict[str, list[int]]:
    prompt = tokenizer(text_of(architecture, sequence[:-1])).input_ids
    target = tokenizer(sequence[-1]).input_ids
    if architecture == "seq2seq":
        return {"input_ids": prompt, "labels": target}
    return {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}


def _pad(examples: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    def padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, value)

    ids = [example["input_ids"] for example in examples]
    return {
        "input_ids": padded(ids, 0),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([example["labels"] for example in examples], -100),
    }
