"""Items that a bundle does not have yet, beside those it has: their vectors, and semantic IDs that nobody had.

Embed and quantize of a run that goes on from a bundle; `items_add` does the same to a bundle itself. Nothing is fitted:
the bundle's own embedder and codebooks are asked. Shapes: N items of the data, D dimensions, L levels.
"""

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from genrec.errors import DataError
from training.ask import ENOUGH_KNOWN
from training.base import BaseBundle
from training.embedder import SavedEmbedder
from training.progress import Progress
from training.published import RETIRED, PublishedIds
from training.quantize_collisions import count_collisions
from training.quantize_health import level_health
from training.quantizer import CODEBOOKS, CodeArray, FloatArray, SavedQuantizer
from training.recipe_data import GivenPart
from training.stage import StageContext
from training.stage_report import write_report

EMBEDDER_FILES = ("embedder.json", "embedder.safetensors")


def embed_newcomers(context: StageContext, base: BaseBundle) -> None:
    """The embed stage of a run that goes on from a bundle.

    ``vectors.safetensors`` has rows of zeros for items that have a semantic ID: nothing reads them.

    Raises:
        DataError: The bundle has no embedder, a new item has nothing to be embedded by, or most items are new.
    """
    items = pq.read_table(context.inputs["prepare"] / "items.parquet")
    new = np.flatnonzero(base.published.rows_of(items["item_id"].to_pylist()) < 0)
    if len(items) - len(new) < ENOUGH_KNOWN * len(items):
        raise DataError(
            f"bundle {base.manifest.name} {base.manifest.version} knows {len(items) - len(new):,} of the "
            f"{len(items):,} items of the data: it was made of other data, and its semantic IDs are of no use here. "
            "Train without --from-bundle."
        )
    made = vectors_of(items.take(pa.array(new)), base, context.progress)
    vectors = np.zeros((len(items), made.shape[1]), dtype=np.float32)
    vectors[new] = made
    save_file({"vectors": vectors}, context.output / "vectors.safetensors")
    for name in EMBEDDER_FILES:
        _copy(base, f"quantizer/{name}", context.output / name)
    note = f"{len(new):,} new items were embedded by the embedder of {base.manifest.name} {base.manifest.version}."
    context.progress.say(note)
    facts = {"items": len(items), "new_items": len(new), "dimensions": made.shape[1]}
    write_report(context.output, "Item vectors", facts, [note])


def quantize_newcomers(context: StageContext, base: BaseBundle) -> None:
    """The quantize stage of a run that goes on from a bundle.

    Items that the bundle has, or once had, keep their semantic IDs. The IDs of items that are not in the data any more
    stay reserved, in ``retired.parquet``.

    Raises:
        DataError: The bundle has no quantizer, or no semantic ID is free for a new item.
    """
    items = pq.read_table(context.inputs["prepare"] / "items.parquet")
    vectors = load_file(context.inputs["embed"] / "vectors.safetensors")["vectors"]
    item_ids: list[str] = items["item_id"].to_pylist()
    known = base.published.rows_of(item_ids)
    new = np.flatnonzero(known < 0)
    codes = base.published.codes[known]
    sizes = base.manifest.codebook_sizes
    if len(new):
        codes[new], sizes = codes_of(vectors[new], base, room=context.recipe.quantize.spare_codes)
    retired = base.published.without(item_ids)
    description = {**_described(base), "codebook_sizes": list(sizes)}
    (context.output / "quantizer.json").write_text(json.dumps(description) + "\n", encoding="utf-8")
    _copy(base, f"quantizer/{CODEBOOKS}", context.output / CODEBOOKS)
    PublishedIds(item_ids, codes).write(context.output / "semantic_ids.parquet")
    if len(retired.item_ids):
        retired.write(context.output / Path(RETIRED).name)
    grown = sum(sizes) - sum(base.manifest.codebook_sizes)
    notes = [
        f"{len(item_ids) - len(new):,} items kept the semantic IDs of {base.manifest.name} {base.manifest.version}.",
        f"{len(new):,} new items were given one by its quantizer; {grown:,} codes were added to the last level.",
        f"{len(retired.item_ids):,} items are not in the data any more; their semantic IDs stay reserved.",
    ]
    for note in notes:
        context.progress.say(note)
    facts = {
        "method": description["method"],
        "items": len(item_ids),
        "levels": level_health(codes, list(sizes)),
        "collisions_after": asdict(count_collisions(codes)),
    }
    write_report(context.output, "Semantic IDs", facts, notes)


def vectors_of(
    items: pa.Table, base: BaseBundle, progress: Progress, vectors_file: GivenPart | None = None
) -> FloatArray:
    """(M, D) float32 of new items; where there are none, no embedder is needed.

    Raises:
        DataError: The bundle has no embedder, or an item has nothing to be embedded by.
    """
    if not len(items):
        return np.zeros((0, 0), dtype=np.float32)
    return SavedEmbedder.load(base.quantizer()).embed(items, vectors_file, progress)


def codes_of(vectors: FloatArray, base: BaseBundle, room: int) -> tuple[CodeArray, tuple[int, ...]]:
    """Semantic IDs for new items, none of them published.

    Args:
        vectors: (M, D) of the new items.
        base: Where the quantizer is.
        room: A collision level may become so many codes wider than what is used of it; 0: it stays as it is.

    Returns:
        (M, L) int32, and the codes of each level.

    Raises:
        DataError: No semantic ID is free for an item, or the bundle has no quantizer.
    """
    saved = SavedQuantizer.load(base.quantizer())
    *others, last = base.manifest.codebook_sizes
    widest = last + room if saved.has_collision_level else last
    wider = dataclasses.replace(saved, sizes=(*others, widest))
    codes = wider.assign(vectors, base.published.codes)
    used = 1 + int(max(codes[:, -1].max(), base.published.codes[:, -1].max()))
    return codes, (*others, max(last, min(used + room, widest)))


def _described(base: BaseBundle) -> dict[str, Any]:
    """The bundle's ``quantizer.json``; one of an imported checkpoint has none, and its codes were given."""
    if not base.has("quantizer/quantizer.json"):
        return {"method": "given", "has_collision_level": False}
    described: dict[str, Any] = json.loads(base.read("quantizer/quantizer.json"))
    return described


def _copy(base: BaseBundle, name: str, target: Path) -> None:
    if base.has(name):
        target.write_bytes(base.read(name))
