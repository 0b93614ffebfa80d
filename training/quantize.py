"""The quantize stage: a semantic ID for each item, unique, with a report on their health.

Knows the files. How codes are made stands in ``quantize_*``, one class a method. Shapes: N items, L levels.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from training.progress import Progress
from training.quantize_collisions import collision_level, count_collisions, reassign_last_code
from training.quantize_given import GivenQuantizer
from training.quantize_health import clusters, level_health
from training.quantize_kmeans import RandomCodes, ResidualKMeans
from training.quantizer import CodeArray, Codes, ItemVectors, Quantizer
from training.recipe import Recipe
from training.sequences import load_sequences
from training.sources import find_files
from training.stage import Stage, StageContext
from training.stage_report import write_report


def run(context: StageContext) -> None:
    """Write ``semantic_ids.parquet``, ``quantizer.json``, ``codebooks.safetensors`` (if made from vectors), a report.

    Raises:
        DataError: The codes cannot be made or read, or too many items share theirs.
    """
    items = pq.read_table(context.inputs["prepare"] / "items.parquet")
    item_ids: list[str] = items["item_id"].to_pylist()
    vectors = load_file(context.inputs["embed"] / "vectors.safetensors")["vectors"]
    popularity = load_sequences(context.inputs["prepare"]).training_counts()
    made = make_quantizer(context.recipe, context.progress).quantize(ItemVectors(item_ids, vectors))
    codes, sizes, notes = made.codes, list(made.sizes), list(made.notes)
    before = count_collisions(codes)
    if context.recipe.quantize.collisions == "reassign":
        codes, moved = reassign_last_code(codes, vectors, made.codebooks)
        notes.append(f"{moved:,} items were given another code of the last level, so as to share theirs with no other.")
    left = count_collisions(codes)
    level = collision_level(codes, popularity, item_ids)
    if level is None:
        notes.append("Semantic IDs are unique; no collision level was needed.")
    else:
        codes = np.concatenate([codes, level[:, None]], axis=1)
        sizes.append(left.largest)
        notes.append(
            f"{left.items:,} items shared {left.groups:,} semantic IDs: a collision level of {left.largest} "
            "codes was added; within a group the most popular item has code 0."
        )
    for note in notes:
        context.progress.say(note)
    _write(context, item_ids, codes, sizes, made, has_collision_level=level is not None)
    facts = {
        "method": context.recipe.quantize.method,
        "items": len(item_ids),
        "levels": level_health(codes, sizes),
        "collisions_before": asdict(before),
        "collisions_after": asdict(count_collisions(codes)),
        "clusters_of_the_first_code": clusters(codes, _titles(items), popularity, depth=1),
        "clusters_of_the_first_two_codes": clusters(codes, _titles(items), popularity, depth=2),
    }
    write_report(context.output, "Semantic IDs", facts, notes)


def make_quantizer(recipe: Recipe, progress: Progress) -> Quantizer:
    """The quantizer that the recipe asks for."""
    section = recipe.quantize
    sizes = section.codebook_sizes or ()
    if section.given is not None:
        return GivenQuantizer(section.given)
    if section.method == "random":
        return RandomCodes(sizes, recipe.seed)
    return ResidualKMeans(sizes, recipe.seed, section.fit_items, section.iterations, section.restarts, progress)


def files_read(recipe: Recipe) -> Sequence[Path]:
    """The file of given codes."""
    given = recipe.quantize.given
    if given is None:
        return ()
    return [Path(given.path)] if given.path.endswith(".json") else find_files(given.path)


def _write(
    context: StageContext,
    item_ids: Sequence[str],
    codes: CodeArray,
    sizes: Sequence[int],
    made: Codes,
    has_collision_level: bool,
) -> None:
    columns: dict[str, pa.Array] = {"item_id": pa.array(item_ids, pa.string())}
    for level in range(codes.shape[1]):
        columns[f"code_{level}"] = pa.array(codes[:, level], pa.int32())
    pq.write_table(pa.table(columns), context.output / "semantic_ids.parquet")
    if made.codebooks:
        books = {f"codebook_{level}": np.ascontiguousarray(book) for level, book in enumerate(made.codebooks)}
        save_file(books, context.output / "codebooks.safetensors")
    description = {
        "method": context.recipe.quantize.method,
        "codebook_sizes": list(sizes),
        "has_collision_level": has_collision_level,
        **made.description,
    }
    text = json.dumps(description, ensure_ascii=False)
    (context.output / "quantizer.json").write_text(text + "\n", encoding="utf-8")


def _titles(items: pa.Table) -> list[str]:
    """What to call each item: the column ``title``, or the first text column, or the id; the id where that is empty."""
    texts = [name for name in items.column_names if pa.types.is_string(items.schema.field(name).type)]
    named = [name for name in texts if name != "item_id"]
    column = "title" if "title" in named else (named or ["item_id"])[0]
    pairs = zip(items[column].to_pylist(), items["item_id"].to_pylist(), strict=True)
    return [title or item_id for title, item_id in pairs]


STAGE = Stage(
    name="quantize",
    needs=("prepare", "embed"),
    section=lambda recipe: recipe.quantize,
    run=run,
    reads=files_read,
)
