"""Tiny random models and bundles, made in a second and small enough to enumerate."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from genrec.bundle import Generation, Manifest, PromptPieces, layout, load_draft, seal, write_draft
from genrec.bundle.manifest import content_version
from genrec.golden import GoldenAnswer
from genrec.item_tokens import spell_all
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.semantic_id import Catalog

SPECIAL_TOKENS = ["<pad>", "</s>", "<unk>", "<s>"]


def tiny_tokenizer(codebook_sizes: tuple[int, ...]) -> PreTrainedTokenizerFast:
    words = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )
    fast.add_tokens(spell_all(codebook_sizes))
    return fast


def tiny_model(architecture: str, vocab_size: int, seed: int = 0) -> PreTrainedModel:
    """Random weights, wide enough apart that scores differ."""
    torch.manual_seed(seed)
    if architecture == "seq2seq":
        config = T5Config(
            vocab_size=vocab_size, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        model: PreTrainedModel = T5ForConditionalGeneration(config)
    else:
        config = LlamaConfig(
            vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=3, tie_word_embeddings=False,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.5)
    return model.eval()


def random_codes(rng: np.random.Generator, num_items: int, codebook_sizes: tuple[int, ...]) -> np.ndarray:
    """Distinct random semantic IDs, `(num_items, L)` int32."""
    flat = rng.choice(int(np.prod(codebook_sizes)), size=num_items, replace=False)
    return np.stack(np.unravel_index(flat, codebook_sizes), axis=1).astype(np.int32)


@dataclass(frozen=True)
class TinyShape:
    """What a tiny bundle looks like."""

    architecture: str = "causal"
    codebook_sizes: tuple[int, ...] = (6, 5, 4)
    num_items: int = 40
    max_history_items: int = 5
    num_beams: int = 6
    separator: bool = False
    seed: int = 0
    suffix: bool = False
    length_penalty: float = 1.0


def write_tiny_draft(root: Path, shape: TinyShape) -> Path:
    """A draft bundle with random weights; items are called i0, i1, … in a shuffled order."""
    rng = np.random.default_rng(shape.seed)
    tokenizer = tiny_tokenizer(shape.codebook_sizes)
    model = tiny_model(shape.architecture, len(tokenizer), shape.seed)
    tokenizer.save_pretrained(root / "hf")
    model.save_pretrained(root / "hf")
    names = [f"i{number}" for number in rng.permutation(shape.num_items)]
    catalog = Catalog(
        pa.array(names),
        random_codes(rng, shape.num_items, shape.codebook_sizes),
        rng.integers(0, 100, shape.num_items),
        pa.table({"title": [f"Title of {name}" for name in names], "year": list(range(1900, 1900 + len(names)))}),
    )
    ids = iter(tokenizer.convert_tokens_to_ids(spell_all(shape.codebook_sizes)))
    manifest = Manifest(
        name="tiny",
        architecture=shape.architecture,
        num_levels=len(shape.codebook_sizes),
        codebook_sizes=shape.codebook_sizes,
        item_token_ids=tuple(tuple(next(ids) for _ in range(size)) for size in shape.codebook_sizes),
        prompt=PromptPieces(
            prefix_ids=(3,),
            item_separator_ids=(2,) if shape.separator else (),
            suffix_ids=(1,) if shape.suffix else (),
            max_history_items=shape.max_history_items,
        ),
        decoder_prefix_ids=(0,) if shape.architecture == "seq2seq" else (),
        generation=Generation(num_beams=shape.num_beams, max_k=50, length_penalty=shape.length_penalty),
        dtype="float32",
        provenance={"dataset": "random"},
    )  # fmt: skip
    write_draft(root / "draft", manifest, catalog, root / "hf")
    return root / "draft"


def seal_tiny(draft: Path, target: Path, **changes: str) -> Path:
    """Seal a draft with golden answers of its own."""
    recommender = Recommender.of(load_draft(draft), engine="generate")
    histories = [["i1", "i2", "i3"], ["i4"], ["i0", "i5", "i6", "i7", "i8", "i9"]]
    golden = [
        GoldenAnswer({"history": history, "k": 5}, answer.scored_list)
        for history, answer in zip(
            histories, recommender.recommend([Request(history, k=5) for history in histories]), strict=True
        )
    ]
    lines = "\n".join(answer.to_json() for answer in golden)
    seal(
        draft,
        target,
        extra={"golden.jsonl": lines, "README.md": "# tiny\n"} | changes,
        golden=recommender.bundle.manifest.golden,
    )
    return target


def tiny_bundle(root: Path, shape: TinyShape = TinyShape()) -> Path:
    """A sealed tiny bundle."""
    return seal_tiny(write_tiny_draft(root, shape), root / "tiny")


def reseal(bundle: Path, **changes: Any) -> Path:
    """Make a changed bundle consistent again: the manifest's `changes`, then the hashes of all files, then the version.

    What is still wrong with it afterwards only the check of that very thing can find.
    """
    file = bundle / layout.MANIFEST
    raw = json.loads(file.read_text(encoding="utf-8")) | changes
    file.unlink()
    raw["files"] = {
        path.relative_to(bundle).as_posix(): {"bytes": path.stat().st_size, "sha256": layout.sha256_of(path)}
        for path in layout.walk(bundle)
    }
    raw["version"] = content_version(raw)
    file.write_text(json.dumps(raw), encoding="utf-8")
    return bundle
