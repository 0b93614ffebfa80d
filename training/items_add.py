"""`genrec items add`: a bundle with more items, made of a bundle. Nothing is trained, no published semantic ID moves.

The weights are the very files of the first bundle. The new items get vectors from its embedder and semantic IDs from
its quantizer, of codes that have tokens already. Shapes: M new items.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genrec.bundle import Bundle, Manifest, layout, load_bundle, load_draft, write_draft
from genrec.bundle import seal as seal_bundle
from genrec.bundle.manifest import DRAFT
from genrec.bundle.write import check_target
from genrec.errors import DataError, InputError
from genrec.golden import GoldenAnswer, ScoredList, check_golden, measure_reduced, read_golden
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.semantic_id import Catalog
from training.base import BaseBundle
from training.newcomers import codes_of, vectors_of
from training.prepare_read import read_items
from training.prepare_write import plain_table
from training.progress import Progress
from training.published import RETIRED
from training.recipe_data import GivenPart, ItemsSource, MetadataColumn
from training.seal import answer_golden, scored_lists
from training.sources import scan

_RECIPE_WORDS = {"list of strings": "list"}  # a recipe has other words for some types of a catalog


def add_items(
    bundle: Path,
    items: Path,
    output: Path,
    *,
    list_separator: str,
    vectors: Path | None,
    replace: bool,
    progress: Progress,
) -> Manifest:
    """Write the bundle.

    Args:
        bundle: The first one; only read.
        items: CSV, TSV, JSONL or Parquet: ``item_id`` and every metadata column of the catalog.
        output: Where the new one goes, not where the first one is.
        list_separator: Between the elements of a list that is written as text.
        vectors: Vectors of the new items, for a bundle whose embedder has a part that was given.
        replace: Whether another bundle there may be replaced.
        progress: The display.

    Raises:
        DataError: The file is not such a table, an item is in the catalog already, or none can be placed.
        BundleError: The first bundle is damaged, `output` is taken, or without its new items the new bundle does not
            answer as the first one.
    """
    check_target(output, replace=replace)
    if output.resolve() == bundle.resolve():
        raise InputError(f"{output} is the bundle itself; give the new one a place of its own, so there is a way back.")
    parent = load_bundle(bundle, dtype="float32")
    base = BaseBundle.open(bundle)
    table = read_new_items(items, parent.catalog, list_separator, progress)
    codes = place(table, base, vectors, progress)
    catalog = extended(parent.catalog, table, codes)
    manifest = parent.manifest.model_copy(
        update={"version": DRAFT, "created_at": "", "files": {}, "provenance": provenance(parent.manifest, len(table))}
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.adding-", dir=output.parent) as scratch:
        draft = Path(scratch) / "draft"
        _write_draft(draft, manifest, catalog, base, table["item_id"].to_pylist())
        return _prove_and_seal(draft, parent, table, output, replace=replace, progress=progress)


def read_new_items(file: Path, catalog: Catalog, list_separator: str, progress: Progress) -> pa.Table:
    """``item_id`` and the metadata of the new items, in the types of the catalog, sorted by id.

    Raises:
        DataError: A column is absent or a value of another type, an id occurs twice or is in the catalog already.
    """
    source = scan(str(file))
    for name in ("item_id", *catalog.columns):
        if name not in source.columns:
            raise DataError(
                f"{file} has no column {name!r}, which the items of the bundle have; add it, empty where nothing is "
                f"known. Its columns: {', '.join(source.columns)}"
            )
    unknown = [name for name in source.columns if name != "item_id" and name not in catalog.columns]
    if unknown:
        progress.say(f"left out, the catalog has no such column: {', '.join(unknown)}")
    wanted = {name: _column(kind, list_separator) for name, kind in catalog.columns.items()}
    table = plain_table(read_items(source, ItemsSource(path=str(file), metadata=wanted)))
    ids: list[str] = table["item_id"].to_pylist()
    known = [item_id for item_id in ids if catalog.row(item_id) is not None]
    if known:
        named = ", ".join(map(repr, known[:5])) + (", …" if len(known) > 5 else "")
        raise DataError(f"{file}: {len(known):,} items are in the catalog already ({named}); remove their rows.")
    if not ids:
        raise DataError(f"{file} holds no items; it needs at least one row.")
    return table.cast(pa.schema([("item_id", pa.string()), *catalog.metadata.schema]))


def _column(kind: str, list_separator: str) -> MetadataColumn:
    word = _RECIPE_WORDS.get(kind, kind)
    return MetadataColumn.model_validate({"type": word, "separator": list_separator if word == "list" else None})


def place(table: pa.Table, base: BaseBundle, vectors: Path | None, progress: Progress) -> npt.NDArray[np.int32]:
    """(M, L) a semantic ID for each new item; one that was in an earlier catalog has its own again.

    Raises:
        DataError: An item has nothing to be embedded by, or no semantic ID is free for it.
    """
    known = base.published.rows_of(table["item_id"].to_pylist())
    codes = base.published.codes[known]
    new = np.flatnonzero(known < 0)
    if len(new):
        given = None if vectors is None else GivenPart(path=str(vectors))
        made = vectors_of(table.take(pa.array(new)), base, progress, given)
        codes[new] = codes_of(made, base, room=0)[0]
    if len(new) < len(table):
        progress.say(f"{len(table) - len(new):,} items were in the catalog before and have their semantic IDs again")
    return codes


def extended(catalog: Catalog, table: pa.Table, codes: npt.NDArray[np.int32]) -> Catalog:
    """The catalog with more items, popularity 0."""
    ids = pa.concat_arrays([catalog.item_ids, table["item_id"].combine_chunks()])
    popularity = np.concatenate([catalog.popularity, np.zeros(len(table), dtype=np.int64)])
    described = [catalog.metadata, table.drop_columns(["item_id"])] if catalog.columns else [catalog.metadata]
    return Catalog(ids, np.concatenate([catalog.codes, codes]), popularity, pa.concat_tables(described))


def provenance(parent: Manifest, count: int) -> dict[str, Any]:
    """That of the first bundle, and what was added to which version."""
    steps = [*parent.provenance.get("items_added", []), {"to_version": parent.version, "items": count}]
    return {**parent.provenance, "items_added": steps}


def _write_draft(draft: Path, manifest: Manifest, catalog: Catalog, base: BaseBundle, new_ids: Sequence[str]) -> None:
    write_draft(draft, manifest, catalog, base.path / layout.MODEL, copy=layout.link_or_copy)
    quantizer = draft / "quantizer"
    for name in base.manifest.files:
        if name.startswith("quantizer/") and name != RETIRED:
            quantizer.mkdir(exist_ok=True)
            layout.link_or_copy(base.path / name, draft / name)
    retired = base.published.without([*base.catalog.item_ids.to_pylist(), *new_ids])
    if len(retired.item_ids):
        quantizer.mkdir(exist_ok=True)
        retired.write(draft / RETIRED)


def _prove_and_seal(
    draft: Path, parent: Bundle, table: pa.Table, output: Path, *, replace: bool, progress: Progress
) -> Manifest:
    """Golden answers as before where the new items may not be answered, and anew where they may; then the seal."""
    bundle = load_draft(draft, dtype="float32")
    before = read_golden(parent)
    requests = [Request(**answer.request) for answer in before]
    prove_unchanged(bundle, before, requests, table["item_id"].to_pylist())
    progress.say(f"without the new items, {len(before)} golden answers are what they were")
    golden = answer_golden(bundle, requests)
    reduced = load_draft(draft, dtype="bfloat16")
    allowance = measure_reduced(reduced, golden, scored_lists(reduced, requests)).allowance
    extra: dict[str, Path | str] = {
        name: parent.path / name for name in parent.manifest.files if not (draft / name).exists() and name != RETIRED
    }
    extra["golden.jsonl"] = "".join(answer.to_json() + "\n" for answer in golden)
    if (card := parent.path / layout.CARD).is_file():
        extra[layout.CARD] = card.read_text(encoding="utf-8") + _told(parent.manifest, len(table))
    return seal_bundle(draft, output, extra=extra, golden=allowance, replace=replace, copy=layout.link_or_copy)


def prove_unchanged(
    bundle: Bundle, before: Sequence[GoldenAnswer], requests: Sequence[Request], new_ids: Sequence[str]
) -> None:
    """Hold what a bundle answers without its new items against what was answered before it had them.

    Raises:
        BundleError: The answers differ.
    """
    recommender = Recommender.of(bundle, engine="generate")
    rows = np.array([bundle.catalog.row(item_id) for item_id in new_ids], dtype=np.int64)
    without = recommender.availability.changed(off=rows, on=np.empty(0, dtype=np.int64))
    found: list[ScoredList] = [
        answer.scored_list for answer in changed(recommender, availability=without).recommend(requests)
    ]
    check_golden(bundle, before, found)


def _told(parent: Manifest, count: int) -> str:
    return (
        f"\n## Items added\n\n{count:,} items were added to {parent.name} {parent.version}, whose numbers stand above. "
        "Nothing was trained: the model has never seen them. A search hardly reaches them among items that it has; "
        "`POST /v1/score` ranks them exactly, and so does a request whose filter has `include_ids`.\n"
    )
