"""The embed stage: a vector for each item, the parts of the recipe side by side.

Knows how parts are joined and when an item has too little to go by. How each is made stands in ``embed_*``.
Shapes: N items, D dimensions.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from genrec.errors import DataError
from training.embed_collaborative import collaborative
from training.embed_given import given
from training.embed_part import FloatArray, Part
from training.embed_text import encoder, tfidf
from training.recipe import Recipe
from training.sequences import load_sequences
from training.stage import Stage, StageContext
from training.stage_report import write_report


def run(context: StageContext) -> None:
    """Write ``vectors.safetensors`` (N, D) float32 in the order of ``items.parquet``, ``embedder.json`` and a report.

    Raises:
        DataError: An item has nothing to be embedded by, or a part's input is wrong.
    """
    section, prepared = context.recipe.embed, context.inputs["prepare"]
    items = pq.read_table(prepared / "items.parquet")
    parts: dict[str, Part] = {}
    # One thread: sums in another order differ in the last bits, and codes would differ with them.
    with threadpool_limits(limits=1):
        for name in section.parts:
            parts[name] = _make(name, context, items)
    weights: dict[str, float] = {name: getattr(section, name).weight for name in section.parts}
    vectors = join(parts, weights, len(items))
    _refuse_empty(vectors, parts, items)
    save_file({"vectors": vectors}, context.output / "vectors.safetensors")
    tensors = {name: tensor for part in parts.values() for name, tensor in part.tensors.items()}
    if tensors:
        save_file(tensors, context.output / "embedder.safetensors")
    described = [
        {"part": name, "dimensions": part.vectors.shape[1], "weight": weights[name], **part.description}
        for name, part in parts.items()
    ]
    embedder = json.dumps({"dimensions": vectors.shape[1], "parts": described}, ensure_ascii=False)
    (context.output / "embedder.json").write_text(embedder + "\n", encoding="utf-8")
    _report(context.output, vectors, parts, described)


def join(parts: Mapping[str, Part], weights: Mapping[str, float], num_items: int) -> FloatArray:
    """(N, D) float32: every part's rows at unit length times its weight, side by side; zero rows stay zero."""
    columns = [np.zeros((num_items, 0), dtype=np.float32)]
    for name, part in parts.items():
        lengths = np.linalg.norm(part.vectors, axis=1, keepdims=True)
        unit = np.divide(part.vectors, lengths, out=np.zeros_like(part.vectors), where=lengths > 0)
        columns.append(unit * np.float32(weights[name]))
    return np.ascontiguousarray(np.concatenate(columns, axis=1), dtype=np.float32)


def files_read(recipe: Recipe) -> Sequence[Path]:
    """Given vectors and their ids, and an encoder that is a local directory."""
    section = recipe.embed
    paths = []
    if section.given is not None:
        paths += [Path(path) for path in (section.given.path, section.given.ids) if path is not None]
    if section.encoder is not None and Path(section.encoder.model).is_dir():
        paths.append(Path(section.encoder.model))
    return paths


def _make(name: str, context: StageContext, items: pa.Table) -> Part:
    section, seed = context.recipe.embed, context.recipe.seed
    if name == "tfidf" and section.tfidf is not None:
        return tfidf(items, section.tfidf, seed)
    if name == "encoder" and section.encoder is not None:
        return encoder(items, section.encoder, context.progress)
    if name == "given" and section.given is not None:
        return given(items["item_id"].to_pylist(), section.given)
    if name == "collaborative" and section.collaborative is not None:
        return collaborative(load_sequences(context.inputs["prepare"]), section.collaborative, seed)
    raise DataError(f"embed.parts lists {name!r} but the recipe has no table for it")


def _refuse_empty(vectors: FloatArray, parts: Mapping[str, Part], items: pa.Table) -> None:
    """An item without a vector is an error, but not beside a collaborative part: then the report counts it."""
    empty = np.flatnonzero(~vectors.any(axis=1))
    if not parts or "collaborative" in parts or not len(empty):
        return
    ids = items["item_id"].take(empty[:5]).to_pylist()
    named = ", ".join(repr(item) for item in ids) + (", …" if len(empty) > 5 else "")
    what = "vector in the given file" if list(parts) == ["given"] else "text to embed"
    raise DataError(
        f'{len(empty):,} items have no {what} ({named}); give them one, or add "collaborative" to embed.parts'
    )


def _report(
    output: Path, vectors: FloatArray, parts: Mapping[str, Part], described: Sequence[Mapping[str, object]]
) -> None:
    rows = [
        {
            "part": entry["part"],
            "dimensions": entry["dimensions"],
            "weight": entry["weight"],
            "share_kept_by_svd": entry.get("kept", ""),
            "items_with_nothing": int((~parts[str(entry["part"])].vectors.any(axis=1)).sum()),
        }
        for entry in described
    ]
    empty = int((~vectors.any(axis=1)).sum())
    notes = [f"Items without any vector, which all get the same codes: {empty:,}."] if parts and empty else []
    facts = {"items": len(vectors), "dimensions": vectors.shape[1], "parts": rows}
    write_report(output, "Item vectors", facts, notes)


STAGE = Stage(name="embed", needs=("prepare",), section=lambda recipe: recipe.embed, run=run, reads=files_read)
