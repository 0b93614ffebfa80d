"""The embed stage: a vector for each item, the parts of the recipe side by side.

Knows how parts are joined and when an item has too little to go by. How each is made stands in ``embed_*``.
Shapes: N items, D dimensions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from genrec.errors import DataError
from training.base import open_base
from training.embed_collaborative import collaborative
from training.embed_given import given
from training.embed_part import FloatArray, Part, Standard, unit
from training.embed_predicted import fit_ridge
from training.embed_text import encoder, tfidf
from training.embedder import COLLABORATIVE, DESCRIPTION, TENSORS
from training.newcomers import embed_newcomers
from training.recipe import Recipe
from training.sequences import load_sequences
from training.stage import Stage, StageContext
from training.stage_report import write_report


def run(context: StageContext) -> None:
    """Write ``vectors.safetensors`` (N, D) float32 in the order of ``items.parquet``, ``embedder.json`` and a report.

    Raises:
        DataError: An item has nothing to be embedded by, or a part's input is wrong.
    """
    base = open_base(context.recipe)
    if base is not None:
        embed_newcomers(context, base)
        return
    section, prepared = context.recipe.embed, context.inputs["prepare"]
    items = pq.read_table(prepared / "items.parquet")
    parts: dict[str, Part] = {}
    weights: dict[str, float] = {name: getattr(section, name).weight for name in section.parts}
    # One thread: sums in another order differ in the last bits, and codes would differ with them.
    with threadpool_limits(limits=1):
        for name in section.parts:
            part = _make(name, context, items)
            parts[name] = replace(part, vectors=unit(part.vectors))
        if COLLABORATIVE in parts and len(parts) > 1:
            parts[COLLABORATIVE] = predict_missing(parts, weights, context.recipe.seed)
        standards = {name: Standard.of(part.vectors) for name, part in parts.items()}
        vectors = join(parts, standards, weights, len(items))
    _refuse_empty(parts, items)
    save_file({"vectors": vectors}, context.output / "vectors.safetensors")
    tensors = {name: tensor for part in parts.values() for name, tensor in part.tensors.items()}
    tensors |= {f"{name}.mean": standard.mean for name, standard in standards.items()}
    if tensors:
        save_file(tensors, context.output / TENSORS)
    described = [
        {
            "part": name,
            "dimensions": part.vectors.shape[1],
            "weight": weights[name],
            "spread": standards[name].spread,
            **part.description,
        }
        for name, part in parts.items()
    ]
    embedder = json.dumps({"dimensions": vectors.shape[1], "parts": described}, ensure_ascii=False)
    (context.output / DESCRIPTION).write_text(embedder + "\n", encoding="utf-8")
    _report(context.output, vectors, parts, described)


def join(
    parts: Mapping[str, Part], standards: Mapping[str, Standard], weights: Mapping[str, float], num_items: int
) -> FloatArray:
    """(N, D) float32: the unit rows of parts side by side, each of total variance ``weight ** 2``; zero stays zero."""
    columns = [np.zeros((num_items, 0), dtype=np.float32)]
    columns += [standards[name].apply(part.vectors, weights[name]) for name, part in parts.items()]
    return np.ascontiguousarray(np.concatenate(columns, axis=1), dtype=np.float32)


def predict_missing(parts: Mapping[str, Part], weights: Mapping[str, float], seed: int) -> Part:
    """The collaborative part, predicted from the others for items that nobody has touched; and what predicts it.

    New items get theirs the same way, from what is stored. A prediction is left as short as it is: the less is known,
    the nearer to the mean, and the more the other parts decide which centroid is near.
    """
    own = parts[COLLABORATIVE]
    others = {name: part for name, part in parts.items() if name != COLLABORATIVE}
    inputs = join(others, {name: Standard.of(part.vectors) for name, part in others.items()}, weights, len(own.vectors))
    known = np.any([part.vectors.any(axis=1) for part in others.values()], axis=0)
    touched = own.vectors.any(axis=1)
    fitted = fit_ridge(inputs[known & touched], own.vectors[known & touched], seed)
    if fitted is None:
        return own
    ridge, measured = fitted
    missing = known & ~touched
    vectors = own.vectors.copy()
    vectors[missing] = ridge.predict(inputs[missing])
    predicted = {**asdict(measured), "items_without_own": int(missing.sum())}
    return Part(vectors, {**own.description, "predicted": predicted}, {**own.tensors, **ridge.tensors})


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


def _refuse_empty(parts: Mapping[str, Part], items: pa.Table) -> None:
    """An item without a vector is an error, but not beside a collaborative part: then the report counts it."""
    if not parts or COLLABORATIVE in parts:
        return
    empty = np.flatnonzero(~np.any([part.vectors.any(axis=1) for part in parts.values()], axis=0))
    if not len(empty):
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
            "spread_of_unit_rows": round(float(str(entry["spread"])), 4),
            "share_kept_by_svd": entry.get("kept", ""),
            "items_with_nothing": int((~parts[str(entry["part"])].vectors.any(axis=1)).sum()),
        }
        for entry in described
    ]
    empty = int((~np.any([part.vectors.any(axis=1) for part in parts.values()], axis=0)).sum()) if parts else 0
    notes = [f"Items without any vector, which all get the same codes: {empty:,}."] if empty else []
    facts: dict[str, object] = {"items": len(vectors), "dimensions": vectors.shape[1], "parts": rows}
    predicted = parts[COLLABORATIVE].description.get("predicted") if COLLABORATIVE in parts else None
    if isinstance(predicted, Mapping):
        facts["collaborative_part_of_new_items"] = predicted
        notes.append(
            f"{predicted['items_without_own']:,} items have no neighbour in training, so their collaborative part is "
            f"predicted from the others, as that of new items will be. Held out, the prediction has a cosine of "
            f"{predicted['cosine']:.2f} with the true part (the mean alone {predicted['cosine_of_the_mean']:.2f}) and "
            f"R² {predicted['r2']:.2f}."
        )
    write_report(output, "Item vectors", facts, notes)


STAGE = Stage(
    name="embed",
    needs=("prepare",),
    section=lambda recipe: recipe.embed,
    run=run,
    reads=files_read,
    version=2,
    reads_base=True,
)
