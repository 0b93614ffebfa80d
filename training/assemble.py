"""Stage `assemble`: all of a bundle that is known before it was measured, as a draft that `Recommender` can open."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from genrec.bundle import Generation, Manifest, PromptPieces, write_draft
from genrec.item_tokens import ItemTokens
from genrec.models import load_model, load_tokenizer
from genrec.semantic_id import Catalog
from training.base import open_base
from training.corpus import Corpus
from training.prune import prune, renumber
from training.recipe import Recipe
from training.seen import REFIT, SEEN_UNTIL, seen_until
from training.sequences import load_sequences
from training.stage import Stage, StageContext
from training.vocabulary import decoder_prefix, input_names, prompt_ids, read_codes, read_item_tokens, save_checkpoint

LIBRARIES = ("genrec", "torch", "transformers", "peft", "numpy")


def run(context: StageContext) -> None:
    """`prepare`, `quantize`, `vocabulary`, `merge` -> ``draft/``."""
    recipe, inputs = context.recipe, context.inputs
    model, tokens = _stored_model(context)
    tokenizer = load_tokenizer(model)
    manifest = Manifest(
        name=recipe.name,
        architecture=recipe.model.architecture,
        num_levels=tokens.num_levels,
        codebook_sizes=tokens.codebook_sizes,
        item_token_ids=tokens.token_ids,
        prompt=PromptPieces(
            **prompt_ids(tokenizer, recipe.prompt),  # type: ignore[arg-type]  # three tuples of ids
            max_history_items=recipe.prompt.max_history_items,
        ),
        decoder_prefix_ids=decoder_prefix(model, recipe.model.architecture),
        generation=Generation(
            num_beams=recipe.bundle.num_beams,
            length_penalty=recipe.bundle.length_penalty,
            max_k=recipe.bundle.max_k,
            exclude_history=recipe.bundle.exclude_history,
        ),
        model_inputs=input_names(model),
        dtype=recipe.bundle.dtype,
        provenance={**provenance(recipe, inputs["prepare"]), **whole(recipe, inputs)},
    )
    write_draft(context.output / "draft", manifest, read_catalog(inputs), model, _quantizer(context))
    for aside in ("quantizer", "pruned", "stored"):
        shutil.rmtree(context.output / aside, ignore_errors=True)


def read_catalog(inputs: Mapping[str, Path]) -> Catalog:
    """Items with their codes, popularity from training interactions only, and metadata."""
    items = pq.read_table(inputs["prepare"] / "items.parquet")
    codes = read_codes(inputs["quantize"]).drop("item_id").to_numpy().astype(np.int32)
    popularity = load_sequences(inputs["prepare"]).training_counts()
    ids = items.column("item_id").cast(pa.string()).combine_chunks()
    return Catalog(ids, codes, popularity, items.drop_columns(["item_id"]))


def provenance(recipe: Recipe, prepare: Path) -> dict[str, Any]:
    """Where the bundle comes from: facts for a reader, nothing that a server acts on."""
    report = json.loads((prepare / "report.json").read_text(encoding="utf-8"))
    settings = recipe.finetune
    kind = "DoRA" if settings.lora.use_dora else "LoRA"
    scaled = " rank-stabilised" if settings.lora.use_rslora else ""
    lora = f"{kind} r={settings.lora.r} alpha={settings.lora.lora_alpha}{scaled}, merged"
    start = "pretrained on the same data, then " if recipe.pretrain and recipe.base is None else ""
    return {
        **origin(recipe),
        "method": start + (lora if settings.method == "lora" else "all parameters fine-tuned"),
        "dataset": report["data"],
        "dataset_sha256": report["interactions_sha256"],
        "seed": recipe.seed,
        "git_commit": git_commit(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def origin(recipe: Recipe) -> dict[str, Any]:
    """What the weights were before: a checkpoint, a config, or a bundle and what that has seen."""
    base = open_base(recipe)
    if base is None:
        return {"base_model": _base_model(recipe)}
    told = {"base_model": f"bundle {base.manifest.name} {base.manifest.version}", "base_bundle": base.origin}
    seen = seen_until(base.manifest)
    return told if seen is None else {**told, SEEN_UNTIL: seen}


def _base_model(recipe: Recipe) -> str:
    model = recipe.model
    if model.checkpoint is None:
        return f"{(model.config or {})['model_type']} from scratch"
    return model.checkpoint if model.plugin is None else f"{model.checkpoint}, read as {model.plugin}"


def whole(recipe: Recipe, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """What there is to say of a run that holds nothing out: what it has seen, and which bundle was measured."""
    if recipe.prepare.split != "none":
        return {}
    told: dict[str, Any] = {"trained_on": "all interactions, validation and test included"}
    if "evaluate" in inputs:  # of a refit: taken from the measured run, which came before
        metrics = json.loads((inputs["evaluate"] / "metrics.json").read_text(encoding="utf-8"))
        told["measured_version"] = metrics[REFIT]["measured_version"]
    return {**told, SEEN_UNTIL: int(load_sequences(inputs["prepare"]).times.max())}


def git_commit() -> str | None:
    """The commit that the code was at, or None where there is no repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607  (git is where the user's PATH has it)
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except OSError:
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _stored_model(context: StageContext) -> tuple[Path, ItemTokens]:
    """The merged model with the tokens and in the dtype that the bundle stores, and which of its tokens are items'."""
    path, facts = context.inputs["merge"] / "model", context.recipe.bundle
    tokens = read_item_tokens(context.inputs["vocabulary"])
    if facts.prune_vocabulary:
        whole, path = path, context.output / "pruned"
        renumbered = prune(Corpus.load(context.inputs, context.recipe), whole, path)
        tokens = renumber(tokens, renumbered)
        context.progress.say(f"assemble: {len(renumbered):,} tokens kept, the others are of text alone")
    if facts.dtype != "float32":
        model = load_model(path, context.recipe.model.architecture).to(getattr(torch, facts.dtype))
        save_checkpoint(model, load_tokenizer(path), context.output / "stored")
        path = context.output / "stored"
    return path, tokens


def _quantizer(context: StageContext) -> Path:
    """Codebooks and the embedder's description, gathered in one directory."""
    gathered = context.output / "quantizer"
    gathered.mkdir()
    parts = {
        "quantize": ("quantizer.json", "codebooks.safetensors", "retired.parquet"),
        "embed": ("embedder.json", "embedder.safetensors"),
    }
    for stage, names in parts.items():
        for name in names:
            if (context.inputs[stage] / name).is_file():
                shutil.copyfile(context.inputs[stage] / name, gathered / name)
    return gathered


def _section(recipe: Recipe) -> object:
    names = ("name", "model", "prompt", "pretrain", "finetune", "bundle")
    return {name: getattr(recipe, name) for name in names}


STAGE = Stage(
    name="assemble",
    needs=("prepare", "embed", "quantize", "vocabulary", "merge"),
    section=_section,
    run=run,
    reads_base=True,
)
