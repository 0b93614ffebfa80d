"""Writing a bundle: a draft that can be tried, then a seal that can be trusted."""

import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from genrec.bundle import layout
from genrec.bundle.contents import check_files
from genrec.bundle.manifest import FileFacts, Golden, Manifest, read_manifest
from genrec.errors import BundleError
from genrec.semantic_id import Catalog
from genrec.trie import ItemTrie, sort_order

Copy = Callable[[str, str], object]
"""Makes of a file at one path the same at another."""


def write_draft(
    root: Path,
    manifest: Manifest,
    catalog: Catalog,
    model: Path,
    quantizer: Path | None = None,
    *,
    copy: Copy = shutil.copy2,
) -> None:
    """Write everything of a bundle that is known before it was evaluated, into the empty directory `root`.

    Args:
        root: the draft; made if it is not there.
        manifest: the facts, not sealed.
        catalog: the items in any order; they are sorted by token path here.
        model: a directory in Hugging Face layout with tokenizer, copied.
        quantizer: codebooks and the embedder's description, copied if given.
        copy: how the model's files are; `layout.link_or_copy` where they are those of a sealed bundle.

    Raises:
        BundleError: the manifest's item tokens contradict each other.
        DataError: a code of the catalog has no token.
    """
    paths = manifest.item_tokens.paths(catalog.codes)
    order = sort_order(paths)
    catalog, paths = catalog.take(order), paths[order]
    shutil.copytree(model, root / layout.MODEL, dirs_exist_ok=True, copy_function=copy)
    if quantizer is not None:
        shutil.copytree(quantizer, root / "quantizer", dirs_exist_ok=True)
    (root / layout.ITEMS).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(catalog_table(catalog), root / layout.ITEMS, compression="zstd")
    ItemTrie.from_sorted(paths).to_marisa().save(str(root / layout.ITEM_TRIE))
    catalog.row_of_id.save(str(root / layout.ID_TRIE))
    layout.write_text(root / layout.DRAFT_MANIFEST, manifest.to_json())


def catalog_table(catalog: Catalog) -> pa.Table:
    """The columns of catalog/items.parquet: item_id, the codes, popularity, then the metadata."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"item_id": catalog.item_ids}
    columns |= {f"code_{level}": pa.array(catalog.codes[:, level]) for level in range(catalog.num_levels)}
    columns["popularity"] = pa.array(catalog.popularity)
    columns |= {name: catalog.metadata.column(name) for name in catalog.metadata.column_names}
    return pa.table(columns)


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse to write over what is there, before the work is done rather than after.

    Raises:
        BundleError: `target` exists and may not be replaced, or is no bundle.
    """
    if not target.exists():
        return
    if not (target / layout.MANIFEST).is_file():
        raise BundleError(f"{target} exists and is not a bundle; choose another --output.")
    if not replace:
        raise BundleError(f"{target} holds a bundle already; add --replace to put the new one in its place.")


def seal(
    draft: Path,
    target: Path,
    *,
    extra: Mapping[str, Path | str],
    golden: Golden,
    replace: bool = False,
    copy: Copy = shutil.copyfile,
) -> Manifest:
    """Make a bundle of a draft: copied beside `target`, synced, the manifest written last, renamed into place.

    Args:
        draft: what `write_draft` wrote.
        target: the bundle's directory, on the file system that it will stay on.
        extra: path within the bundle -> a file or directory to copy, or text to write (golden answers, card, metrics).
        golden: how closely golden.jsonl must be met.
        replace: whether a bundle in `target` may be replaced; it stands until the new one is complete.
        copy: how the draft's files are. Contents alone unless another is given: weights are saved readable by their
            owner only, and another user may be the one who serves.

    Returns:
        The manifest with its version.

    Raises:
        BundleError: `target` may not be written, or the draft holds a file that no bundle may hold.
    """
    check_target(target, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.sealing-{os.getpid()}")
    if beside.exists():
        shutil.rmtree(beside)
    try:
        left_out = shutil.ignore_patterns(layout.DRAFT_MANIFEST)
        shutil.copytree(draft, beside, ignore=left_out, copy_function=copy)
        for name, content in extra.items():
            _put(beside / name, content)
        manifest = read_manifest(draft / layout.DRAFT_MANIFEST).model_copy(update={"golden": golden})
        files = {file.relative_to(beside).as_posix(): _facts(file) for file in layout.walk(beside)}
        sealed = manifest.sealed(files=files, created_at=datetime.now(UTC).isoformat(timespec="seconds"))
        layout.sync_tree(beside)
        layout.write_text(beside / layout.MANIFEST, sealed.to_json())
        layout.sync(beside)
        check_files(beside, sealed)
        layout.replace_directory(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sealed


def _put(target: Path, content: Path | str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        target.write_text(content, encoding="utf-8")
    elif content.is_dir():
        shutil.copytree(content, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(content, target)


def _facts(file: Path) -> FileFacts:
    return FileFacts(bytes=file.stat().st_size, sha256=layout.sha256_of(file))
