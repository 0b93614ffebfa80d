"""Reading a bundle: nothing is returned that has not been checked."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel

from genrec.bundle import layout
from genrec.bundle.contents import Contents, read_draft, read_sealed
from genrec.bundle.manifest import DRAFT, Manifest, check_version, read_manifest
from genrec.bundle.verify import check_item_trie, check_model_inputs, check_tokens, open_id_trie
from genrec.errors import BundleError, DataError, one_line
from genrec.history import HistoryEncoder
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import ModelInputs
from genrec.models import build_model, build_tokenizer, plugin_of, resolve_device, resolve_dtype
from genrec.semantic_id import Catalog, first_unordered
from genrec.trie import ItemTrie


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. All parts agree with each other.

    Attributes:
        path: the directory it came from.
        manifest: its facts.
        catalog: its items, sorted by token path.
        trie: the same as a trie; leaf = row.
        encoder: item rows -> input ids.
        model: the merged model, on its device, in eval mode.
        model_inputs: what it takes beside ids and mask.
        dtype: what the weights were loaded as.
        golden: the content of golden.jsonl, None in a draft.
    """

    path: Path
    manifest: Manifest
    catalog: Catalog
    trie: ItemTrie
    encoder: HistoryEncoder
    model: PreTrainedModel
    model_inputs: ModelInputs
    dtype: str
    golden: bytes | None


def load_bundle(
    path: str | Path, *, device: str = "cpu", dtype: str = "auto", expect_version: str | None = None
) -> Bundle:
    """Load a sealed bundle after every check but the golden replay, which `Recommender.load` adds.

    Args:
        path: the bundle's directory.
        device: auto, cpu, cuda or cuda:N.
        dtype: auto (float32 on CPU, the manifest's elsewhere), float32, bfloat16 or float16.
        expect_version: refuse every other version, before anything but the manifest is read.

    Raises:
        BundleError: one sentence that names the file or item.
        InputError: device or dtype cannot be had here, or `expect_version` is not a version.
    """
    root = Path(path)
    manifest = read_sealed_manifest(root)
    check_version(manifest, expect_version)
    device, dtype = _resolve(manifest, device, dtype)
    try:
        contents = read_sealed(root, manifest)
    except OSError as error:
        raise BundleError(f"{root} cannot be read: {one_line(error)}") from error
    return _make(root, manifest, contents, device=device, dtype=dtype)


def load_draft(path: str | Path, *, device: str = "cpu", dtype: str = "auto") -> Bundle:
    """Load a draft that `assemble` made: the same checks less those of sealed bytes.

    Raises:
        BundleError, InputError: as `load_bundle`.
    """
    root = Path(path)
    manifest = read_manifest(root / layout.DRAFT_MANIFEST)
    device, dtype = _resolve(manifest, device, dtype)
    return _make(root, manifest, read_draft(root), device=device, dtype=dtype)


def read_sealed_manifest(root: Path) -> Manifest:
    """The manifest of the bundle in `root`. It is written last: without it, the directory is no bundle yet.

    Raises:
        BundleError: there is none, it cannot be read, or is that of a draft.
    """
    if not root.is_dir():
        raise BundleError(f"{root} is not a directory; give the path of a bundle.")
    if not (root / layout.MANIFEST).is_file():
        raise BundleError(f"{root} has no {layout.MANIFEST}, so it is not a (finished) bundle.")
    manifest = read_manifest(root / layout.MANIFEST)
    if manifest.version == DRAFT:
        raise BundleError(f"{root} is a draft; seal it first.")
    return manifest


def read_catalog(content: bytes, tokens: ItemTokens) -> Catalog:
    """The content of catalog/items.parquet as a catalog, every code known to `tokens`.

    Raises:
        BundleError: a column is missing or of a wrong type, two items share a semantic ID, or the order is wrong.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"file {layout.ITEMS} cannot be read: {one_line(error)}") from error
    code_names = [f"code_{level}" for level in range(tokens.num_levels)]
    for name in ("item_id", "popularity", *code_names):
        if name not in table.column_names:
            raise BundleError(f"file {layout.ITEMS} has no column {name!r}.")
    extra = next(
        (name for name in table.column_names if re.fullmatch(r"code_\d+", name) and name not in code_names), None
    )
    if extra:
        raise BundleError(
            f"file {layout.ITEMS} has a column {extra!r}, but the manifest has {tokens.num_levels} levels."
        )
    try:
        columns = [table.column(name).to_numpy() for name in code_names]
        catalog = Catalog(
            item_ids=table.column("item_id").cast(pa.string()).combine_chunks(),
            codes=np.stack(columns, axis=1, dtype=np.int32, casting="safe"),
            popularity=table.column("popularity").to_numpy().astype(np.int64, casting="safe"),
            metadata=table.drop_columns(["item_id", "popularity", *code_names]).combine_chunks(),
        )
        paths = tokens.paths(catalog.codes)
    except (DataError, pa.ArrowException, TypeError, ValueError) as error:
        raise BundleError(f"file {layout.ITEMS}: {one_line(error)}") from error
    if first_unordered(paths) is not None:
        raise BundleError(f"file {layout.ITEMS} is not sorted by token path.")
    return catalog


def _resolve(manifest: Manifest, device: str, dtype: str) -> tuple[str, str]:
    device = resolve_device(device)
    return device, resolve_dtype(dtype, device=device, stored=manifest.dtype)


def _make(root: Path, manifest: Manifest, contents: Contents, *, device: str, dtype: str) -> Bundle:
    tokens = manifest.item_tokens
    catalog = read_catalog(contents.file(layout.ITEMS), tokens)
    paths = tokens.paths(catalog.codes)
    trie = ItemTrie.from_sorted(paths)
    check_item_trie(contents.file(layout.ITEM_TRIE), trie)
    catalog = catalog.with_id_trie(open_id_trie(contents.file(layout.ID_TRIE), catalog))
    checkpoint = contents.checkpoint
    checkpoint.check_texts()
    model = build_model(checkpoint, manifest.architecture, device=device, dtype=dtype)
    inputs = check_model_inputs(manifest, tokens, plugin_of(checkpoint))
    check_tokens(manifest, tokens, model, build_tokenizer(checkpoint))
    encoder = HistoryEncoder(manifest.prompt.prompt, paths)
    return Bundle(root, manifest, catalog, trie, encoder, model, inputs, dtype, contents.files.get(layout.GOLDEN))
