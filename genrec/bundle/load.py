"""Reading a bundle: nothing is returned that has not been checked."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from genrec.bundle import layout
from genrec.bundle.catalog import read_catalog
from genrec.bundle.contents import Contents, read_draft, read_sealed
from genrec.bundle.manifest import Manifest, check_version, read_manifest, read_sealed_manifest
from genrec.bundle.verify import check_item_trie, check_model_inputs, check_tokens, open_id_trie
from genrec.errors import BundleError, one_line
from genrec.history import HistoryEncoder
from genrec.model_inputs import ModelInputs
from genrec.models import build_model, build_tokenizer, plugin_of, resolve_device, resolve_dtype
from genrec.semantic_id import Catalog
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
