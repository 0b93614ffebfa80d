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
from genrec.models import load_model, load_tokenizer
from genrec.semantic_id import Catalog
from training.recipe import Recipe
from training.sequences import load_sequences
from training.stage import Stage, StageContext
from training.vocabulary import decoder_prefix, prompt_ids, read_codes, read_item_tokens, save_checkpoint

LIBRARIES = ("genrec", "torch", "transformers", "peft", "numpy")


def run(context: StageContext) -> None:
    """`prepare`, `quantize`, `vocabulary`, `merge` -> ``draft/``."""
    recipe, inputs = context.recipe, context.inputs
    model = _stored_model(context)
    tokens = read_item_tokens(inputs["vocabulary"])
    tokenizer = load_tokenizer(inputs["merge"] / "model")
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
        dtype=recipe.bundle.dtype,
        provenance=provenance(recipe, inputs["prepare"]),
    )
    write_draft(context.output / "draft", manifest, read_catalog(inputs), model, _quantizer(context))
    shutil.rmtree(context.output / "quantizer")
    shutil.rmtree(context.output / "stored", ignore_errors=True)


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
    lora = f"LoRA r={settings.lora.r} alpha={settings.lora.lora_alpha}, merged"
    start = "pretrained on the same data, then " if recipe.pretrain else ""
    config = recipe.model.config or {}
    return {
        "base_model": recipe.model.checkpoint or f"{config['model_type']} from scratch",
        "method": start + (lora if settings.method == "lora" else "all parameters fine-tuned"),
        "dataset": report["data"],
        "dataset_sha256": report["interactions_sha256"],
        "seed": recipe.seed,
        "git_commit": git_commit(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


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


def _stored_model(context: StageContext) -> Path:
    """The merged model in the dtype that the bundle stores."""
    merged, dtype = context.inputs["merge"] / "model", context.recipe.bundle.dtype
    if dtype == "float32":
        return merged
    model = load_model(merged, context.recipe.model.architecture).to(getattr(torch, dtype))
    save_checkpoint(model, load_tokenizer(merged), context.output / "stored")
    return context.output / "stored"


def _quantizer(context: StageContext) -> Path:
    """Codebooks and the embedder's description, gathered in one directory."""
    gathered = context.output / "quantizer"
    gathered.mkdir()
    parts = {
        "quantize": ("quantizer.json", "codebooks.safetensors"),
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
)
