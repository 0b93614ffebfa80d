"""Reading a bundle: nothing is returned that has not been checked."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel

from genrec.bundle import layout
from genrec.bundle.manifest import DRAFT, Manifest, read_manifest
from genrec.bundle.verify import check_files, check_item_trie, check_tokens, open_id_trie
from genrec.errors import BundleError, DataError, one_line
from genrec.history import HistoryEncoder
from genrec.item_tokens import ItemTokens
from genrec.models import load_model, load_tokenizer, resolve_device, resolve_dtype
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
        dtype: what the weights were loaded as.
    """

    path: Path
    manifest: Manifest
    catalog: Catalog
    trie: ItemTrie
    encoder: HistoryEncoder
    model: PreTrainedModel
    dtype: str


def load_bundle(path: str | Path, *, device: str = "cpu", dtype: str = "auto") -> Bundle:
    """Load a sealed bundle after every check but the golden replay, which `Recommender.load` adds.

    Raises:
        BundleError: one sentence that names the file or item.
        InputError: device or dtype cannot be had here.
    """
    root = Path(path)
    if not root.is_dir():
        raise BundleError(f"{root} is not a directory; give the path of a bundle.")
    if not (root / layout.MANIFEST).is_file():
        raise BundleError(f"{root} has no {layout.MANIFEST}, so it is not a (finished) bundle.")
    manifest = read_manifest(root / layout.MANIFEST)
    if manifest.version == DRAFT:
        raise BundleError(f"{root} is a draft; seal it first.")
    try:
        check_files(root, manifest)
    except OSError as error:
        raise BundleError(f"{root} cannot be read: {one_line(error)}") from error
    return _load_parts(root, manifest, device=device, dtype=dtype)


def load_draft(path: str | Path, *, device: str = "cpu", dtype: str = "auto") -> Bundle:
    """Load a draft that `assemble` made: the same checks less those of sealed bytes.

    Raises:
        BundleError, InputError: as `load_bundle`.
    """
    root = Path(path)
    return _load_parts(root, read_manifest(root / layout.DRAFT_MANIFEST), device=device, dtype=dtype)


def read_catalog(root: Path, tokens: ItemTokens) -> Catalog:
    """catalog/items.parquet as a catalog, every code known to `tokens`.

    Raises:
        BundleError: a column is missing or of a wrong type, two items share a semantic ID, or the order is wrong.
    """
    try:
        table = pq.read_table(root / layout.ITEMS)
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
            metadata=table.drop_columns(["item_id", "popularity", *code_names]),
        )
        paths = tokens.paths(catalog.codes)
    except (DataError, pa.ArrowException, TypeError, ValueError) as error:
        raise BundleError(f"file {layout.ITEMS}: {one_line(error)}") from error
    if first_unordered(paths) is not None:
        raise BundleError(f"file {layout.ITEMS} is not sorted by token path.")
    return catalog


def _load_parts(root: Path, manifest: Manifest, *, device: str, dtype: str) -> Bundle:
    if manifest.model_inputs:
        raise BundleError(
            f"the model takes the extra inputs {list(manifest.model_inputs)}, and no installed plug-in fills them."
        )
    tokens = manifest.item_tokens
    catalog = read_catalog(root, tokens)
    paths = tokens.paths(catalog.codes)
    trie = ItemTrie.from_sorted(paths)
    check_item_trie(root, trie)
    catalog = catalog.with_id_trie(open_id_trie(root, catalog))
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device=device, stored=manifest.dtype)
    model = load_model(root / layout.MODEL, manifest.architecture, device=device, dtype=dtype)
    check_tokens(manifest, tokens, model, load_tokenizer(root / layout.MODEL))
    return Bundle(root, manifest, catalog, trie, HistoryEncoder(manifest.prompt.prompt, paths), model, dtype)
