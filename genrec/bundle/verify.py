"""The checks that stand between a directory and a served bundle. Each failure is one sentence that names the file."""

from typing import TypeVar

import marisa_trie
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from genrec.bundle import layout
from genrec.bundle.manifest import Manifest
from genrec.errors import BundleError, DataError, one_line
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.model_plugin import ModelPlugin
from genrec.models import embedding_rows, special_ids
from genrec.semantic_id import Catalog, id_trie_agrees
from genrec.trie import ItemTrie

_Trie = TypeVar("_Trie", marisa_trie.BinaryTrie, marisa_trie.RecordTrie)


def check_tokens(
    manifest: Manifest, tokens: ItemTokens, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Item tokens lie within the model's vocabulary, and none is a special token.

    Raises:
        BundleError: otherwise, or the architecture is another, or an id of the prompt is out of range.
    """
    if model.config.is_encoder_decoder != (manifest.architecture == "seq2seq"):
        raise BundleError(f"{layout.MANIFEST} says {manifest.architecture}, but {layout.MODEL}/ is of the other kind.")
    rows, head_rows = embedding_rows(model)
    if rows != head_rows:
        raise BundleError(f"{layout.MODEL}/ has {rows} embedding rows but {head_rows} output rows; they must be equal.")
    if tokens.highest_id >= rows:
        raise BundleError(
            f"{layout.MANIFEST} has item token id {tokens.highest_id}, beyond the {rows} rows of the embedding."
        )
    clash = tokens.clash(special_ids(model, tokenizer))
    if clash is not None:
        raise BundleError(
            f"{layout.MANIFEST} has item token id {clash}, which is {tokenizer.convert_ids_to_tokens(clash)!r}, "
            "a pad, start, end or other special token of the model."
        )
    pieces = manifest.prompt
    others = (*pieces.prefix_ids, *pieces.item_separator_ids, *pieces.suffix_ids, *manifest.decoder_prefix_ids)
    if max(others, default=0) >= rows:
        raise BundleError(f"{layout.MANIFEST} has prompt token id {max(others)}, beyond the {rows} embedding rows.")
    if bool(manifest.decoder_prefix_ids) != (manifest.architecture == "seq2seq"):
        raise BundleError(f"{layout.MANIFEST}: decoder_prefix_ids must be given for seq2seq and be empty for causal.")


def check_model_inputs(manifest: Manifest, tokens: ItemTokens, plugin: ModelPlugin | None) -> ModelInputs:
    """What the model takes beside ids and mask: what its plug-in fills is what it was trained with.

    Raises:
        BundleError: the manifest names other inputs than the plug-in.
    """
    inputs = NO_INPUTS if plugin is None else plugin.model_inputs(tokens)
    if set(inputs.names) != set(manifest.model_inputs):
        of_its_type = "a model of its type takes" if plugin is None else f"the installed {plugin.model_type!r} fills"
        raise BundleError(
            f"{layout.MANIFEST} says that the model takes the extra inputs {list(manifest.model_inputs)}, but "
            f"{of_its_type} {list(inputs.names)}; serve it with the plug-in that it was trained with."
        )
    return inputs


def check_item_trie(content: bytes, trie: ItemTrie) -> None:
    """The item-token trie of the bundle holds the paths of the catalog.

    Raises:
        BundleError: it cannot be read, or disagrees.
    """
    marisa = _open_trie(content, layout.ITEM_TRIE, marisa_trie.BinaryTrie())
    if not trie.agrees_with(marisa):
        raise BundleError(f"file {layout.ITEM_TRIE} holds other token paths than {layout.ITEMS}.")


def open_id_trie(content: bytes, catalog: Catalog) -> marisa_trie.RecordTrie:
    """The trie of the bundle that leads from the catalog's item ids to their rows.

    Raises:
        BundleError: it cannot be read, or disagrees.
    """
    marisa = _open_trie(content, layout.ID_TRIE, marisa_trie.RecordTrie("<I"))
    try:
        agrees = id_trie_agrees(marisa, catalog.item_ids)
    except DataError as error:
        raise BundleError(f"file {layout.ID_TRIE} does not hold one 4-byte row an item id.") from error
    if not agrees:
        raise BundleError(f"file {layout.ID_TRIE} holds other item ids than {layout.ITEMS}.")
    return marisa


def _open_trie(content: bytes, name: str, trie: _Trie) -> _Trie:
    try:
        trie.frombytes(content)
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"file {name} is not a marisa-trie: {one_line(error)}") from error
    return trie
