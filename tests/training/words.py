"""Models that read text, tiny: tokenizers trained on some sentences, and twenty films with their titles."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from genrec.models import Architecture, load_tokenizer
from tests.training.bench import RememberingProgress, recipe, run_stage, write_csv
from training import embed, finetune, prepare, pretrain, quantize, vocabulary
from training.corpus import Corpus
from training.recipe import Recipe
from training.stage import Stage

TITLES = (
    "Alien (1979)", "Aliens (1986)", "Blade Runner (1982)", "Brazil (1985)", "Casablanca (1942)", "Chinatown (1974)",
    "Dr. Strangelove (1964)", "Fargo (1996)", "Good, the Bad & the Ugly (1966)", "Heat (1995)", "Jaws (1975)",
    "M (1931)", "Metropolis (1927)", "Psycho (1960)", "Ran (1985)", "Rear Window (1954)", "Rebecca (1940)",
    "Stalker (1979)", "The Third Man (1949)", "Vertigo (1958)",
)  # fmt: skip
UNTITLED = "i20"
SENTENCES = (*TITLES, "The item called x is", "The item x is called", "After x; y comes")


def byte_level() -> PreTrainedTokenizerBase:
    """As SmolLM2's or Qwen's: merges of bytes, a space belongs to the word after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    roles = {"unk_token": special[0], "bos_token": special[1], "eos_token": special[2], "pad_token": special[2]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def sentence_piece() -> PreTrainedTokenizerBase:
    """As T5's: unigrams, a mark in place of each space, an end token after every text.

    Its pieces are given: the trainer of unigrams does not find the same ones twice.
    """
    special = ["<pad>", "</s>", "<unk>"]
    words = {f"▁{word}" for sentence in SENTENCES for word in sentence.split() if not word.startswith("(")}
    letters = {letter for sentence in SENTENCES for letter in sentence if letter != " "} | {"▁", "▁(19"}
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(letter, -9.0) for letter in sorted(letters)] + [(word, -4.0) for word in sorted(words - letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def write_text_model(architecture: Architecture, path: Path) -> Path:
    """A checkpoint whose tokenizer reads text; its weights are random."""
    torch.manual_seed(0)
    if architecture == "causal":
        words = byte_level()
        config = LlamaConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(path)
    else:
        words = sentence_piece()
        config = T5Config(
            vocab_size=len(words), d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4, dropout_rate=0.0,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        T5ForConditionalGeneration(config).save_pretrained(path)
    words.save_pretrained(path)
    return path


@dataclass(frozen=True)
class Cinema:
    """Films that people saw, and a model that reads text, up to the stage before fitting."""

    architecture: Architecture
    work: Path
    checkpoint: Path
    data: Path

    def recipe(self, tasks: dict[str, Any] | None, **finetune: Any) -> Recipe:
        text = [] if self.architecture == "seq2seq" else ["<|im_start|>"]
        end = ["</s>"] if self.architecture == "seq2seq" else []
        return recipe(
            {
                "interactions": {"path": str(self.data / "seen.csv")},
                "items": {"path": str(self.data / "films.csv"), "metadata": {"title": "string", "genre": "string"}},
            },
            embed={"parts": ["tfidf"], "tfidf": {"columns": ["genre"]}},
            quantize={"codebook_sizes": [4, 6]},
            model={"architecture": self.architecture, "checkpoint": str(self.checkpoint)},
            prompt={"prefix": text, "suffix": end, "max_history_items": 6},
            finetune={"method": "full", "tasks": tasks, **finetune},
        )

    def corpus(self) -> Corpus:
        return Corpus.load(
            {name: self.work / name for name in ("prepare", "quantize", "vocabulary")}, self.recipe(None)
        )

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.work / "vocabulary" / "model")

    def fit(self, output: Path, recipe: Recipe) -> RememberingProgress:
        """Run the fitting stage alone, its result in ``output/finetune``."""
        progress = RememberingProgress()
        output.mkdir(exist_ok=True)
        for name in ("prepare", "quantize", "vocabulary", "pretrain"):
            (output / name).symlink_to(self.work / name)
        run_stage(finetune.STAGE, recipe, output, progress)
        return progress


def open_cinema(architecture: Architecture, root: Path) -> Cinema:
    made = Cinema(architecture, root / "work", write_text_model(architecture, root / "model"), root / "data")
    draw = random.Random(1)
    films = [f'i{number:02},"{title}",genre{number % 5}' for number, title in enumerate((*TITLES, ""))]
    write_csv(made.data / "films.csv", "item_id,title,genre", *films)
    seen = [
        f"u{user:02},i{draw.randrange(21):02},{1_700_000_000 + 86_400 * step}"
        for user in range(30)
        for step in range(draw.randint(4, 9))
    ]
    write_csv(made.data / "seen.csv", "user_id,item_id,timestamp", *seen)
    stages: tuple[Stage, ...] = (prepare.STAGE, embed.STAGE, quantize.STAGE, vocabulary.STAGE, pretrain.STAGE)
    for stage in stages:
        run_stage(stage, made.recipe(None), made.work)
    return made
