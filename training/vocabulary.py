"""Stage `vocabulary`: every (level, code) becomes a token, and the model has a row for each.

Reads the codebook sizes; writes a base model with its tokenizer, and which token id stands for which code.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.numpy import load_file
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from genrec.bundle import layout, load_bundle
from genrec.checkpoint import read_texts
from genrec.errors import DataError, InputError, RecipeError
from genrec.item_tokens import ItemTokens, spell, spell_all
from genrec.models import Architecture, load_model, load_tokenizer, plugin_of
from training.base import BaseBundle, open_base
from training.base_model import load_base
from training.model_check import check_model
from training.recipe import Recipe
from training.recipe_model import PromptText
from training.semantic_start import semantic_rows
from training.stage import Stage, StageContext

ITEM_TOKENS = "item_tokens.json"


def run(context: StageContext) -> None:
    """`quantize`, and `embed` where tokens begin at vectors -> ``model/`` and ``item_tokens.json``."""
    sizes = codebook_sizes(context.inputs["quantize"])
    recipe, bundle = context.recipe, open_base(context.recipe)
    set_seed(recipe.seed)
    if bundle is not None:
        base, tokenizer, tokens = grown(bundle, sizes)
    else:
        base, tokenizer = load_base(recipe.model)
        new_rows = extend(base, tokenizer, sizes)
        if recipe.model.checkpoint is not None:
            spread(base, new_rows)
        tokens = read_item_tokens_of(tokenizer, sizes)
        if recipe.model.semantic_start is not None:
            _start_at_vectors(base, tokens, context, recipe.model.semantic_start)
    prompt_ids(tokenizer, recipe.prompt)  # a prompt token that does not exist shows now, not after training
    base.config.use_cache = False  # while training; the merged model has it on again
    save_checkpoint(base, tokenizer, context.output / "model")
    (context.output / ITEM_TOKENS).write_text(json.dumps(tokens.token_ids), encoding="utf-8")
    rows = base.get_input_embeddings().weight.shape[0]
    tied = "tied" if is_tied(base) else "not tied"
    context.progress.say(
        f"vocabulary: {len(tokenizer) - sum(sizes):,} base + {sum(sizes):,} item tokens, {rows:,} rows, "
        f"{base.num_parameters() / 1e6:.2f} M parameters, input and output {tied}"
    )


def files_read(recipe: Recipe) -> Sequence[Path]:
    """The base model, where it is on this machine; a hub id is taken by its name."""
    checkpoint = Path(recipe.model.checkpoint or "")
    return [checkpoint] if recipe.model.checkpoint and checkpoint.exists() else []


def codebook_sizes(quantize: Path) -> tuple[int, ...]:
    """How many codes each level has, the collision level included."""
    sizes = json.loads((quantize / "quantizer.json").read_text(encoding="utf-8"))["codebook_sizes"]
    return tuple(int(size) for size in sizes)


def read_codes(quantize: Path) -> pl.DataFrame:
    """item_id and code_0 … code_{L-1}, in the order of the items."""
    return pl.read_parquet(quantize / "semantic_ids.parquet")


def read_item_tokens(vocabulary: Path) -> ItemTokens:
    """Which token id stands for which code, as the stage wrote it."""
    levels = json.loads((vocabulary / ITEM_TOKENS).read_text(encoding="utf-8"))
    return ItemTokens(tuple(tuple(level) for level in levels))


def load_trainable(path: Path, architecture: Architecture) -> PreTrainedModel:
    """A checkpoint of an earlier stage, in float32, ready to be trained: no cache of keys and values is kept."""
    model = load_model(path, architecture)
    model.config.use_cache = False
    trainable: PreTrainedModel = model.train()
    return trainable


def decoder_prefix(model: Path, architecture: Architecture) -> tuple[int, ...]:
    """What the decoder of a checkpoint starts with: its start token, nothing for a causal model.

    Raises:
        InputError: the config of a seq2seq model does not say.
    """
    if architecture == "causal":
        return ()
    start = json.loads((model / "config.json").read_text(encoding="utf-8")).get("decoder_start_token_id")
    if start is None:
        raise InputError("the base model's config.json lacks decoder_start_token_id; add it (T5 starts with pad, 0).")
    return (int(start),)


def input_names(model: Path) -> tuple[str, ...]:
    """What the model of a checkpoint takes beside ids and mask.

    Raises:
        BundleError: nothing installed has its family.
    """
    plugin = plugin_of(read_texts(model))
    return () if plugin is None else plugin.inputs


def grown(bundle: BaseBundle, sizes: tuple[int, ...]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ItemTokens]:
    """The model and tokenizer of a bundle, which have its item tokens already; codes that it had not get theirs here.

    Raises:
        BundleError: the bundle does not pass the checks of a load.
        DataError: as `add_item_tokens`.
    """
    model: PreTrainedModel = load_bundle(bundle.path, dtype="float32").model
    tokenizer = load_tokenizer(bundle.path / layout.MODEL)
    had = bundle.manifest.item_token_ids
    spelled = [[spell(level, code) for code in range(len(had[level]), size)] for level, size in enumerate(sizes)]
    new = [token for tokens in spelled for token in tokens]
    if new:
        spread(model, add_item_tokens(model, tokenizer, new))
    ids = [(*before, *tokenizer.convert_tokens_to_ids(tokens)) for before, tokens in zip(had, spelled, strict=True)]
    return model, tokenizer, ItemTokens(tuple(ids))


def extend(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sizes: tuple[int, ...]) -> slice:
    """Add every item token of these codebooks, as `add_item_tokens` does."""
    return add_item_tokens(model, tokenizer, spell_all(sizes))


def add_item_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: list[str]) -> slice:
    """Add item tokens to the tokenizer and give each a row in the model; embeddings only ever grow.

    Returns:
        The rows of the new tokens.

    Raises:
        DataError: an item token is in the base vocabulary already, or cannot have an id of its own.
    """
    known = tokenizer.get_vocab()
    clashes = [token for token in tokens if token in known]
    if clashes:
        raise DataError(
            f"the base tokenizer has the token {clashes[0]!r} already ({len(clashes)} clash in all); "
            "take a base model without item tokens."
        )
    added = tokenizer.add_tokens(tokens)
    ids = tokenizer.convert_tokens_to_ids(tokens)
    if added != len(tokens) or not set(known.values()).isdisjoint(ids):
        # tokenizers counts from the size of the base vocabulary, so ids with holes among them are given out twice
        raise DataError(
            f"the base tokenizer took {added} of {len(tokens)} item tokens, or gave one the id of another token; "
            "its ids must be 0, 1, 2, … without holes."
        )
    new_rows = slice(min(ids), max(ids) + 1)
    if not is_tied(model):
        # T5 v1.1 says it is tied and is not; resizing would believe it and overwrite the head (transformers PR 43681).
        model.config.tie_word_embeddings = False
    if new_rows.stop > model.get_input_embeddings().weight.shape[0]:
        # mean_resizing draws new rows with 1e-9 of the old rows' covariance: all alike, cosine above .99999
        model.resize_token_embeddings(new_rows.stop, mean_resizing=False)
    return new_rows


@torch.no_grad()
def spread(model: PreTrainedModel, new_rows: slice) -> None:
    """Draw new rows from a normal with the mean and spread that the old rows have in each dimension."""
    weights = [model.get_input_embeddings().weight]
    weights += [] if is_tied(model) else [model.get_output_embeddings().weight]
    for weight in weights:
        old = weight[: new_rows.start].float()
        noise = torch.randn(new_rows.stop - new_rows.start, weight.shape[1])
        weight[new_rows] = (old.mean(0) + noise * old.std(0)).to(weight.dtype)


@torch.no_grad()
def _start_at_vectors(model: PreTrainedModel, tokens: ItemTokens, context: StageContext, deviation: float) -> None:
    """Begin item tokens at the vectors of their items, around the mean of the old rows, in both matrices alike."""
    vectors = load_file(context.inputs["embed"] / "vectors.safetensors")["vectors"]
    codes = read_codes(context.inputs["quantize"]).drop("item_id").to_numpy().astype(np.int32)
    weights = [model.get_input_embeddings().weight]
    weights += [] if is_tied(model) else [model.get_output_embeddings().weight]
    width = weights[0].shape[1]
    ids, rows = semantic_rows(vectors, tokens.paths(codes), width, deviation, context.recipe.seed)
    for weight in weights:
        old = weight[: min(map(min, tokens.token_ids))].float()
        weight[torch.from_numpy(ids)] = (old.mean(0) + torch.from_numpy(rows)).to(weight.dtype)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input embedding and output head are one matrix, by what they are and not by what the config says."""
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return bool(inputs.data_ptr() == outputs.data_ptr())


def read_item_tokens_of(tokenizer: PreTrainedTokenizerBase, sizes: tuple[int, ...]) -> ItemTokens:
    """The token ids that a tokenizer gives the item tokens of these codebooks."""
    ids = iter(tokenizer.convert_tokens_to_ids(spell_all(sizes)))
    return ItemTokens(tuple(tuple(next(ids) for _ in range(size)) for size in sizes))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: PromptText) -> dict[str, tuple[int, ...]]:
    """Token ids of the prompt's pieces.

    Raises:
        RecipeError: a piece is not a token.
    """
    known = tokenizer.get_vocab()
    pieces = {"prefix_ids": prompt.prefix, "item_separator_ids": prompt.separator, "suffix_ids": prompt.suffix}
    for tokens in pieces.values():
        for token in tokens:
            if token not in known:
                raise RecipeError(f"[prompt] has {token!r}, which is not a token of the base tokenizer.")
    return {name: tuple(known[token] for token in tokens) for name, tokens in pieces.items()}


def generation_ids(config: PreTrainedConfig) -> GenerationConfig:
    """What the ids of a checkpoint mean; nothing that a base model's author liked for sampling comes along."""
    names = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
    return GenerationConfig(**{name: getattr(config, name, None) for name in names})


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Model and tokenizer in Hugging Face layout, safetensors, without a chat template.

    The config says whether input and output are tied as they are: version 5 of transformers reads "tied" for every T5,
    and version 4 would then overwrite the head of v1.1.
    """
    model.config.tie_word_embeddings = is_tied(model)
    model.save_pretrained(path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(path)


STAGE = Stage(
    name="vocabulary",
    needs=("embed", "quantize"),
    section=lambda recipe: {"model": recipe.model, "prompt": recipe.prompt},
    run=run,
    check=check_model,
    reads=files_read,
    reads_base=True,
)
