"""The quantize stage: a semantic ID for each item, unique, with a report on their health.

Knows the files. How codes are made stands in ``quantize_*``, one class a method. Shapes: N items, L levels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from training.base import open_base
from training.newcomers import quantize_newcomers
from training.progress import Progress
from training.quantize_balanced import BalancedKMeans
from training.quantize_collisions import Unique, count_collisions, make_unique
from training.quantize_given import GivenQuantizer
from training.quantize_health import check_gates, clusters, level_health, prefix_health
from training.quantize_kmeans import KMeansFit, RandomCodes, ResidualKMeans
from training.quantize_neighbours import Pairs, following_pairs, nearest_pairs, sharing
from training.quantize_plots import draw
from training.quantize_product import ProductKMeans
from training.quantize_rqvae import ResidualVae
from training.quantizer import CODEBOOKS, DESCRIPTION, Codes, ItemVectors, Quantizer
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
    base = open_base(context.recipe)
    if base is not None:
        quantize_newcomers(context, base)
        return
    items = pq.read_table(context.inputs["prepare"] / "items.parquet")
    item_ids: list[str] = items["item_id"].to_pylist()
    vectors = load_file(context.inputs["embed"] / "vectors.safetensors")["vectors"]
    sequences = load_sequences(context.inputs["prepare"])
    popularity = sequences.training_counts()
    described = ItemVectors(item_ids, vectors)
    made = make_quantizer(context.recipe, context.progress).quantize(described)
    unique = make_unique(made, context.recipe.quantize, described, popularity)
    for note in (*made.notes, *unique.notes):
        context.progress.say(note)
    _write(context, item_ids, unique, made)
    seed = context.recipe.seed
    pairs = {
        "nearest": nearest_pairs(vectors, seed),
        "following": following_pairs(sequences.training_sequences(), seed),
    }
    _report(context, made, unique, _titles(items), popularity, pairs)
    check_gates(context.recipe.quantize.gates, made.codes, made.sizes, context.output / "report.md")


def _report(
    context: StageContext,
    made: Codes,
    unique: Unique,
    titles: Sequence[str],
    popularity: npt.NDArray[np.int64],
    pairs: Mapping[str, Pairs | None],
) -> None:
    codes = unique.codes
    levels, shared = level_health(codes, unique.sizes), sharing(made.codes, pairs, context.recipe.seed)
    first = np.bincount(codes[:, 0], minlength=unique.sizes[0])
    facts = {
        "method": context.recipe.quantize.method,
        "items": len(codes),
        "share_left_over": made.description.get("share_left_over", ""),
        "levels": levels,
        "prefixes": prefix_health(codes),
        "pairs_that_share_codes": shared,
        "collisions_before": asdict(count_collisions(made.codes)),
        "collisions_after": asdict(count_collisions(codes)),
        "items_of_first_codes": {"fullest_first": np.sort(first)[::-1].tolist()},
        "clusters_of_the_first_code": clusters(codes, titles, popularity, depth=1),
        "clusters_of_the_first_two_codes": clusters(made.codes, titles, popularity, depth=2),
        "plots": draw(context.output, levels, first, shared),
    }
    write_report(context.output, "Semantic IDs", facts, [*made.notes, *unique.notes])


def make_quantizer(recipe: Recipe, progress: Progress) -> Quantizer:
    """The quantizer that the recipe asks for."""
    section = recipe.quantize
    sizes = section.codebook_sizes or ()
    if section.given is not None:
        return GivenQuantizer(section.given)
    if section.method == "random":
        return RandomCodes(sizes, recipe.seed)
    fit = KMeansFit(recipe.seed, section.fit_items, section.iterations, section.restarts)
    if section.balanced_kmeans is not None:
        return BalancedKMeans(sizes, section.balanced_kmeans.slack, fit, progress)
    if section.product is not None:
        return ProductKMeans(sizes, section.product.rotate, fit, progress)
    if section.rqvae is not None:
        return ResidualVae(sizes=sizes, **section.rqvae.model_dump(), fit=fit, progress=progress)
    return ResidualKMeans(sizes, fit, progress)


def files_read(recipe: Recipe) -> Sequence[Path]:
    """The file of given codes."""
    given = recipe.quantize.given
    if given is None:
        return ()
    return [Path(given.path)] if given.path.endswith(".json") else find_files(given.path)


def _write(context: StageContext, item_ids: Sequence[str], unique: Unique, made: Codes) -> None:
    columns: dict[str, pa.Array] = {"item_id": pa.array(item_ids, pa.string())}
    for level in range(unique.codes.shape[1]):
        columns[f"code_{level}"] = pa.array(unique.codes[:, level], pa.int32())
    pq.write_table(pa.table(columns), context.output / "semantic_ids.parquet")
    if made.codebooks is not None:
        made.codebooks.save(context.output / CODEBOOKS)
    description = {
        "method": context.recipe.quantize.method,
        "codebook_sizes": list(unique.sizes),
        "has_collision_level": unique.has_collision_level,
        **made.description,
    }
    text = json.dumps(description, ensure_ascii=False)
    (context.output / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


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
    version=2,
    reads_base=True,
)
