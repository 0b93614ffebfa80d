"""Synthetic catalogs, tries, models and bundles of any size, made by the project's own writing path.

`python -m benchmarks.synthetic --items N --output DIR` writes a sealed bundle that `genrec serve` accepts. The weights
are random: such a bundle says what things cost, not how good they are.

Shapes: N items, L levels.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
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
from transformers.utils import logging as transformers_logging

from genrec.bundle import Generation, Manifest, PromptPieces, load_draft, seal, write_draft
from genrec.golden import GoldenAnswer
from genrec.item_tokens import ItemTokens, spell_all
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.semantic_id import Catalog
from genrec.trie import ItemTrie

MODELS = ("tiny-t5", "tiger", "tiny-llama")
"""tiger: the T5 of the TIGER paper, 4+4 layers, d_model 128, 6 heads of 64, d_ff 1024. The others have 2 layers."""

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<s>")
GENRES = ("Action", "Comedy", "Crime", "Drama", "Family", "Horror", "Music", "Mystery", "Romance", "Science Fiction")
_FIRST_WORDS = ("Amber", "Bright", "Crimson", "Distant", "Endless", "Fallen", "Golden", "Hidden", "Iron", "Jade")
_LAST_WORDS = ("Anchor", "Bridge", "Castle", "Dream", "Empire", "Forest", "Garden", "Harbour", "Island", "Journey")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a synthetic bundle looks like.

    Attributes:
        num_items: N, at most the product of the codebook sizes.
        codebook_sizes: codes a level.
        skew: 1 draws codes evenly; above 1 small codes are drawn more often, so that branches differ in size.
        model: one of `MODELS`.
        num_beams, max_k, max_history_items: the manifest's.
        seed: of everything that is drawn.
    """

    num_items: int
    codebook_sizes: tuple[int, ...] = (256, 256, 256, 256)
    skew: float = 1.0
    model: str = "tiger"
    num_beams: int = 20
    max_k: int = 100
    max_history_items: int = 20
    seed: int = 0


def item_tokens(codebook_sizes: Sequence[int]) -> ItemTokens:
    """Token ids as `tokenizer` gives them: after the special tokens, level by level."""
    starts = len(SPECIAL_TOKENS) + np.cumsum([0, *codebook_sizes])
    return ItemTokens(
        tuple(tuple(range(start, start + size)) for start, size in zip(starts.tolist(), codebook_sizes, strict=False))
    )


def semantic_ids(shape: Shape) -> npt.NDArray[np.int32]:
    """``(N, L)`` int32 distinct random codes, ascending.

    Raises:
        ValueError: there are fewer semantic IDs than items.
    """
    space = prod(shape.codebook_sizes)
    if shape.num_items > space:
        raise ValueError(f"{shape.num_items} items need more than the {space} semantic IDs of {shape.codebook_sizes}.")
    rng = np.random.default_rng(shape.seed)
    if 2 * shape.num_items > space:  # few are left out: drawing until all are found would take long
        flat = rng.permutation(space)[: shape.num_items]
    else:
        flat = np.empty(0, dtype=np.int64)
        while len(flat) < shape.num_items:
            flat = np.sort(np.concatenate((flat, _draw(rng, shape, shape.num_items - len(flat) + 100))))
            flat = flat[np.append(True, flat[1:] != flat[:-1])]  # np.unique hashes, which takes 15 times as long
        flat = rng.permutation(flat)[: shape.num_items]
    return np.stack(np.unravel_index(np.sort(flat), shape.codebook_sizes), axis=1).astype(np.int32)


def _draw(rng: np.random.Generator, shape: Shape, count: int) -> npt.NDArray[np.int64]:
    codes = [(size * rng.random(count) ** shape.skew).astype(np.int64) for size in shape.codebook_sizes]
    return np.ravel_multi_index(codes, shape.codebook_sizes).astype(np.int64)


def item_trie(shape: Shape) -> ItemTrie:
    """The trie alone, for sizes at which nobody needs the rest."""
    return ItemTrie.from_sorted(item_tokens(shape.codebook_sizes).paths(semantic_ids(shape)))


def catalog(shape: Shape) -> Catalog:
    """Items ``item-00000000`` … in no particular order, with title, genres, year and price."""
    rng = np.random.default_rng(shape.seed + 1)
    count = shape.num_items
    numbers = pa.array(rng.permutation(count)).cast(pa.string())
    padded = pc.utf8_lpad(numbers, 8, "0")
    words = [pa.array(words).take(pa.array(rng.integers(0, 10, count))) for words in (_FIRST_WORDS, _LAST_WORDS)]
    genre_ends = np.concatenate(([0], np.cumsum(rng.integers(0, 4, count)))).astype(np.int32)
    genres = pa.array(GENRES).take(pa.array(rng.integers(0, len(GENRES), int(genre_ends[-1]))))
    metadata = {
        "title": pc.binary_join_element_wise(*words, numbers, " "),
        "genres": pa.ListArray.from_arrays(pa.array(genre_ends), genres),
        "year": pa.array(rng.integers(1950, 2026, count)),
        "price": pa.array(np.round(rng.gamma(2.0, 10.0, count), 2), mask=rng.random(count) < 0.05),
    }
    return Catalog(
        item_ids=pc.binary_join_element_wise("item", padded, "-"),
        codes=semantic_ids(shape),
        popularity=np.floor(rng.pareto(1.2, count) * 5).astype(np.int64),
        metadata=pa.table(metadata),
    )


def tokenizer(codebook_sizes: Sequence[int]) -> PreTrainedTokenizerFast:
    """Special tokens, then the item tokens; nothing else."""
    words = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )
    fast.add_tokens(spell_all(codebook_sizes))
    return fast


def random_model(name: str, vocab_size: int, seed: int = 0) -> PreTrainedModel:
    """A model of `MODELS` with random weights, in eval mode.

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; there are {', '.join(MODELS)}.")
    torch.manual_seed(seed)
    if name == "tiny-llama":
        config = LlamaConfig(
            vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=3, tie_word_embeddings=False,
            initializer_range=0.3,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()
    size = (
        {"d_model": 128, "d_kv": 64, "num_heads": 6, "d_ff": 1024, "num_layers": 4}
        if name == "tiger"
        else {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 2}
    )
    config = T5Config(
        vocab_size=vocab_size, dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **size
    )
    return T5ForConditionalGeneration(config).eval()


def write_synthetic_draft(root: Path, shape: Shape) -> Path:
    """A draft bundle in the directory `root`/draft."""
    model_path, draft = root / "model", root / "draft"
    vocabulary = tokenizer(shape.codebook_sizes)
    model = random_model(shape.model, len(vocabulary), shape.seed)
    vocabulary.save_pretrained(model_path)
    model.save_pretrained(model_path)
    seq2seq = bool(model.config.is_encoder_decoder)
    manifest = Manifest(
        name="synthetic",
        architecture="seq2seq" if seq2seq else "causal",
        num_levels=len(shape.codebook_sizes),
        codebook_sizes=shape.codebook_sizes,
        item_token_ids=item_tokens(shape.codebook_sizes).token_ids,
        prompt=PromptPieces(prefix_ids=() if seq2seq else (3,), max_history_items=shape.max_history_items),
        decoder_prefix_ids=(0,) if seq2seq else (),
        generation=Generation(num_beams=shape.num_beams, max_k=shape.max_k),
        dtype="float32",
        provenance={"dataset": "synthetic", "items": shape.num_items, "seed": shape.seed},
    )
    write_draft(draft, manifest, catalog(shape), model_path)
    return draft


def seal_synthetic(draft: Path, output: Path, *, replace: bool = False) -> Path:
    """Seal a draft with three golden answers of its own."""
    recommender = Recommender.of(load_draft(draft), engine="generate")
    item_ids, length = recommender.bundle.catalog.item_ids, min(5, len(recommender.bundle.catalog))
    requests = [{"history": item_ids.slice(start, length).to_pylist(), "k": 5} for start in (0, 1, 2)]
    answers = recommender.recommend([Request(**request) for request in requests])
    golden = [
        GoldenAnswer(request, answer.scored_list).to_json() for request, answer in zip(requests, answers, strict=True)
    ]
    extra = {"golden.jsonl": "\n".join(golden), "README.md": "# Synthetic bundle\n\nRandom weights.\n"}
    seal(draft, output, extra=extra, golden=recommender.bundle.manifest.golden, replace=replace)
    return output


def write_bundle(output: Path, shape: Shape, *, replace: bool = False) -> Path:
    """A sealed bundle in the directory `output`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".synthetic-") as work:
        return seal_synthetic(write_synthetic_draft(Path(work), shape), output, replace=replace)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, required=True, help="how many")
    parser.add_argument("--output", type=Path, required=True, help="the bundle's directory")
    parser.add_argument("--codebooks", type=int, nargs="+", default=[256] * 4, help="codes a level")
    parser.add_argument("--skew", type=float, default=1.0, help="1: codes drawn evenly; more: small codes oftener")
    parser.add_argument("--model", choices=MODELS, default="tiger")
    parser.add_argument("--beams", type=int, default=20, help="the bundle's default beam width")
    parser.add_argument("--max-history-items", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replace", action="store_true", help="in the place of a bundle that is there")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    shape = Shape(
        num_items=given.items,
        codebook_sizes=tuple(given.codebooks),
        skew=given.skew,
        model=given.model,
        num_beams=given.beams,
        max_history_items=given.max_history_items,
        seed=given.seed,
    )
    print(write_bundle(given.output, shape, replace=given.replace))


if __name__ == "__main__":
    main()
