"""A hundred ways to damage a causal bundle, each with the sentence that must tell of it once the bundle is resealed.

A damage is a function that changes a bundle's files; a dictionary that it returns is changes of the manifest.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marisa_trie
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from genrec.bundle import layout
from genrec.semantic_id import build_id_trie
from genrec.trie import ItemTrie, sort_order
from tests.fakes import random_codes

Damage = Callable[[Path], object]

WEIGHTS, CONFIG = "model/model.safetensors", "model/config.json"


def json_file(name: str, **changes: Any) -> Damage:
    def damage(bundle: Path) -> None:
        content = json.loads((bundle / name).read_text())
        (bundle / name).write_text(json.dumps(content | changes))

    return damage


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda bundle: (bundle / name).write_bytes(change((bundle / name).read_bytes()))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without(name: str) -> Damage:
    return lambda bundle: (bundle / name).unlink()


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(bundle: Path) -> None:
        tensors = load_file(bundle / WEIGHTS)
        change(tensors)
        save_file(tensors, bundle / WEIGHTS, metadata={"format": "pt"})

    return damage


def poisoned(name: str, value: float) -> Damage:
    return weights(lambda tensors: tensors[name].view(-1)[7:8].fill_(value))


def swapped_weights(tensors: dict[str, torch.Tensor]) -> None:
    one, two = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"
    tensors[one], tensors[two] = tensors[two].clone(), tensors[one].clone()


def items(change: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(bundle: Path) -> None:
        pq.write_table(change(pq.read_table(bundle / layout.ITEMS)), bundle / layout.ITEMS)

    return damage


def column(name: str, change: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> Damage:
    def changed(table: pa.Table) -> pa.Table:
        values = change(table.column(name).to_pylist())
        return table.set_column(table.column_names.index(name), name, pa.array(values, kind or table.field(name).type))

    return items(changed)


def twice_one_semantic_id(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), *[shared_codes(table)], table.slice(2)])


def shared_codes(table: pa.Table) -> pa.Table:
    row = table.slice(1, 1)
    for level in range(3):
        name = f"code_{level}"
        row = row.set_column(row.column_names.index(name), name, table.column(name).slice(0, 1))
    return row


def golden(change: Callable[[list[dict[str, Any]]], object]) -> Damage:
    def damage(bundle: Path) -> None:
        answers = [json.loads(line) for line in (bundle / layout.GOLDEN).read_text().splitlines()]
        change(answers)
        (bundle / layout.GOLDEN).write_text("\n".join(map(json.dumps, answers)))

    return damage


def item_tokens(change: Callable[[list[list[int]]], object]) -> Damage:
    """Other item tokens, with catalog and tries in step."""

    def damage(bundle: Path) -> dict[str, Any]:
        token_ids = json.loads((bundle / layout.MANIFEST).read_text())["item_token_ids"]
        change(token_ids)
        table = pq.read_table(bundle / layout.ITEMS)
        paths = np.array(
            [
                [token_ids[level][code] for level, code in enumerate(codes)]
                for codes in zip(*(table.column(f"code_{level}").to_pylist() for level in range(3)), strict=True)
            ],
            dtype=np.int32,
        )
        order = sorted(range(len(paths)), key=lambda row: tuple(paths[row]))
        table = table.take(order)
        pq.write_table(table, bundle / layout.ITEMS)
        ItemTrie.from_sorted(paths[order]).to_marisa().save(str(bundle / layout.ITEM_TRIE))
        build_id_trie(table.column("item_id").to_pylist()).save(str(bundle / layout.ID_TRIE))
        return {"item_token_ids": token_ids}

    return damage


def manifest(**changes: Any) -> Damage:
    return lambda _: changes


def edited(key: str, **changes: Any) -> Damage:
    return lambda bundle: {key: json.loads((bundle / layout.MANIFEST).read_text())[key] | changes}


def item_trie_of_another(bundle: Path) -> None:
    paths = random_codes(np.random.default_rng(1), 40, (6, 5, 4)) + np.array([4, 10, 15], np.int32)
    ItemTrie.from_sorted(paths[sort_order(paths)]).to_marisa().save(str(bundle / layout.ITEM_TRIE))


def id_trie_in_another_order(bundle: Path) -> None:
    ids = pq.read_table(bundle / layout.ITEMS).column("item_id").to_pylist()
    build_id_trie(reversed(ids)).save(str(bundle / layout.ID_TRIE))


def rows_of_two_bytes(bundle: Path) -> None:
    ids = pq.read_table(bundle / layout.ITEMS).column("item_id").to_pylist()
    marisa_trie.RecordTrie("<H", [(item_id, (row,)) for row, item_id in enumerate(ids)]).save(
        str(bundle / layout.ID_TRIE)
    )


def adapter_of_another_base(bundle: Path) -> None:
    """With PEFT installed, transformers would load the base named here, by path or from the hub."""
    config = {"peft_type": "LORA", "base_model_name_or_path": str(bundle / "model")}
    (bundle / "model" / "adapter_config.json").write_text(json.dumps(config))


def set_first(values: list[Any], value: Any) -> list[Any]:
    return [value, *values[1:]]


def nudged(answers: list[dict[str, Any]]) -> None:
    answers[2]["items"][4]["score"] += 3e-4


RUNS_CODE = "config.json holds '{}', which could run code"
NO_MODEL, NO_TOKENIZER = "the checkpoint in model/ cannot be loaded", "the tokenizer in model/ cannot be loaded"
CATALOG_IS_MISSING = r"file catalog/items\.parquet is missing"
NO_CATALOG = r"file catalog/items\.parquet cannot be read"
OTHER_PATHS = r"file catalog/items\.marisa holds other token paths than catalog/items\.parquet"
OTHER_IDS = r"file catalog/ids\.marisa holds other item ids than catalog/items\.parquet"
BAD_REQUEST = r"file golden\.jsonl holds a request that this bundle refuses"

RESEALED: dict[str, tuple[Damage, str]] = {
    # weights
    "a NaN in a weight": (poisoned("model.norm.weight", float("nan")), r"'model\.norm\.weight' .* NaN or infinite"),
    "an infinite weight": (poisoned("lm_head.weight", float("inf")), r"'lm_head\.weight' .* NaN or infinite"),
    "a missing weight": (weights(lambda w: w.pop("model.norm.weight")), r"lacks weight 'model\.norm\.weight'"),
    "an unexpected weight": (
        weights(lambda w: w.update(item_position=torch.ones(2))), "holds the unexpected weight 'item_position'"
    ),
    "a weight of another shape": (
        weights(lambda w: w.update({"lm_head.weight": torch.ones(30, 16)})),
        r"'lm_head\.weight' in model/ has shape \[30, 16\], but its config says \[19, 16\]",
    ),
    "two weights swapped": (weights(swapped_weights), "golden answer 1"),
    "no weights": (without(WEIGHTS), r"checkpoint in model/ cannot be loaded: .*model\.safetensors"),
    "weights cut short": (bytes_of(WEIGHTS, half), NO_MODEL),
    "no byte of weights": (bytes_of(WEIGHTS, lambda _: b""), NO_MODEL),
    # config and tokenizer
    "no config": (without(CONFIG), r"model/config\.json cannot be read"),
    "config that is no JSON": (bytes_of(CONFIG, half), r"model/config\.json cannot be read"),
    "config that is a list": (bytes_of(CONFIG, lambda _: b"[]"), r"model/config\.json is not a JSON object"),
    "config that brings code": (json_file(CONFIG, auto_map={"AutoConfig": "x.Y"}), RUNS_CODE.format("auto_map")),
    "config that fetches a kernel": (json_file(CONFIG, _attn_implementation="a/b"), RUNS_CODE.format("_attn_.*")),
    "config of custom pipelines": (json_file(CONFIG, custom_pipelines={"a": {}}), RUNS_CODE.format("custom_pipelines")),
    "config that quantizes": (json_file(CONFIG, quantization_config={"a": 1}), RUNS_CODE.format("quantization_config")),
    "an adapter": (adapter_of_another_base, r"model/adapter_config\.json would load a base model from elsewhere"),
    "config of another family": (json_file(CONFIG, model_type="t5"), NO_MODEL),
    "config of an unknown family": (json_file(CONFIG, model_type="nope"), NO_MODEL),
    "config with a wrong type": (json_file(CONFIG, hidden_size="wide"), "cannot be loaded: .*'hidden_size'"),
    "config without heads": (json_file(CONFIG, num_attention_heads=0), NO_MODEL),
    "config with a pad beyond the rows": (json_file(CONFIG, pad_token_id=10**6), NO_MODEL),
    "config with fewer layers": (json_file(CONFIG, num_hidden_layers=1), "unexpected weight 'model.layers.1"),
    "config with more layers": (json_file(CONFIG, num_hidden_layers=3), "lacks weight 'model.layers.2"),
    "config with more rows": (json_file(CONFIG, vocab_size=20), r"shape \[19, 16\], but its config says \[20, 16\]"),
    "no tokenizer": (without("model/tokenizer.json"), NO_TOKENIZER),
    "tokenizer cut short": (bytes_of("model/tokenizer.json", half), NO_TOKENIZER),
    "tokenizer of no model": (
        bytes_of("model/tokenizer.json", lambda _: b'{"added_tokens": [], "model": {"type": "Nope"}}'),
        NO_TOKENIZER,
    ),
    "tokenizer config cut short": (
        bytes_of("model/tokenizer_config.json", half), r"model/tokenizer_config\.json cannot be read"
    ),
    # tokens
    "a token beyond the vocabulary": (
        item_tokens(lambda ids: ids[2].__setitem__(3, 5000)), "item token id 5000, beyond the 19 rows of the embedding"
    ),
    "a token just beyond the vocabulary": (
        item_tokens(lambda ids: ids[2].__setitem__(3, 19)), "item token id 19, beyond the 19 rows of the embedding"
    ),
    "the pad token as item token": (item_tokens(lambda ids: ids[0].__setitem__(0, 0)), "id 0, which is '<pad>'"),
    "the end token as item token": (item_tokens(lambda ids: ids[1].__setitem__(2, 1)), "id 1, which is '</s>'"),
    "the start token as item token": (item_tokens(lambda ids: ids[2].__setitem__(0, 3)), "id 3, which is '<s>'"),
    "the unknown token as item token": (item_tokens(lambda ids: ids[0].__setitem__(5, 2)), "id 2, which is '<unk>'"),
    "an item token that the config ends with": (json_file(CONFIG, eos_token_id=[1, 9]), "id 9, which is '<a_5>'"),
    "two codes with one token": (manifest(item_token_ids=[[4] * 6, [5] * 5, [6] * 4]), "id 4 stands for two codes"),
    "two tokens exchanged": (item_tokens(lambda ids: ids[2].reverse()), "golden answer 1"),
    "a prompt token beyond the vocabulary": (edited("prompt", prefix_ids=[19]), "prompt token id 19, beyond the 19"),
    "a prompt without its prefix": (edited("prompt", prefix_ids=[]), "golden answer 1"),
    "a separator the model never saw": (edited("prompt", item_separator_ids=[2]), "golden answer 1"),
    "a shorter history": (edited("prompt", max_history_items=1), "golden answer 1"),
    "a decoder prefix of a causal model": (manifest(decoder_prefix_ids=[0]), "decoder_prefix_ids must be given"),
    # manifest
    "another architecture": (manifest(architecture="seq2seq"), NO_MODEL),
    "a newer format": (manifest(format_version=2), "format_version 2; this version of genrec reads up to 1"),
    "an unknown key": (manifest(adapter="lora"), r"manifest\.json: key adapter: Extra inputs"),
    "inputs that nothing fills": (manifest(model_inputs=["item_position_ids"]), "takes the extra inputs"),
    "other codebook sizes": (manifest(codebook_sizes=[6, 5, 5]), r"codebook_sizes says \[6, 5, 5\]"),
    "another number of levels": (manifest(num_levels=2), "num_levels 2"),
    "another length penalty": (edited("generation", length_penalty=2.0), "golden answer 1: the score at rank 1"),
    "a smaller limit than the golden answers ask for": (edited("generation", max_k=2), "k must be from 1 to 2"),
    # catalog
    "two items with one semantic ID": (items(twice_one_semantic_id), r"items 'i\d+' and 'i\d+' share the"),
    "rows out of order": (items(lambda t: t.take([1, 0, *range(2, 40)])), "parquet is not sorted by token path"),
    "one item less": (items(lambda t: t.slice(0, 39)), OTHER_PATHS),
    "no item": (items(lambda t: t.slice(0, 0)), r"items\.parquet: the catalog is empty"),
    "a code beyond its codebook": (column("code_2", lambda c: [*c[:-1], 4]), "code 4 at level 2 .* has no token"),
    "a negative code": (column("code_0", lambda c: set_first(c, -1)), r"item 'i\d+' has a negative code"),
    "a code of null": (column("code_1", lambda c: set_first(c, None)), r"file catalog/items\.parquet: "),
    "codes that are no integers": (column("code_1", lambda c: c, pa.float64()), r"file catalog/items\.parquet: "),
    "an item id of null": (column("item_id", lambda c: set_first(c, None)), "row 0 of the catalog has no item id"),
    "one item id twice": (column("item_id", lambda c: [*c[:-1], c[0]]), r"item id 'i\d+' occurs more than once"),
    "another item id": (column("item_id", lambda c: set_first(c, "other")), OTHER_IDS),
    "a column of codes less": (items(lambda t: t.drop_columns(["code_2"])), r"items\.parquet has no column 'code_2'"),
    "a column of codes more": (
        items(lambda t: t.append_column("code_3", t.column("code_0"))), "has a column 'code_3', but the manifest has 3"
    ),
    "no popularity": (items(lambda t: t.drop_columns(["popularity"])), "has no column 'popularity'"),
    "one column twice": (items(lambda t: t.append_column("year", t.column("year"))), NO_CATALOG),
    "a column of no known type": (
        items(lambda t: t.append_column("when", pa.array([0] * 40, pa.timestamp("s")))), "'when' has type timestamp"
    ),
    "a catalog that is no Parquet": (bytes_of(layout.ITEMS, half), NO_CATALOG),
    "no catalog": (without(layout.ITEMS), CATALOG_IS_MISSING),
    # tries
    "the item trie of another catalog": (item_trie_of_another, OTHER_PATHS),
    "the id trie of another catalog": (
        column("item_id", lambda c: [f"x{item_id}" for item_id in c]), OTHER_IDS
    ),
    "an id trie with the rows of another order": (id_trie_in_another_order, OTHER_IDS),
    "an id trie of another layout": (rows_of_two_bytes, r"ids\.marisa does not hold one 4-byte row an item id"),
    "an item trie that is none": (bytes_of(layout.ITEM_TRIE, half), r"items\.marisa is not a marisa-trie"),
    "no id trie": (without(layout.ID_TRIE), r"file catalog/ids\.marisa is missing"),
    # golden answers
    "a golden score that is wrong": (
        golden(lambda a: a[0]["items"][0].update(score=-9.0)), r"answer 1: the score at rank 1 is -\S+ instead of -9\.0"
    ),
    "a golden score a little wrong": (golden(nudged), "golden answer 3: the score at rank 5"),
    "a golden score that is no number": (
        golden(lambda a: a[1]["items"][0].update(score=float("nan"))), r"golden\.jsonl cannot be read .*not finite"
    ),
    "golden items exchanged": (
        golden(lambda a: a[0]["items"][0].update(item_id=a[0]["items"][1]["item_id"])), "golden answer 1: item 'i"
    ),
    "a golden item less": (golden(lambda a: a[1]["items"].pop()), "answer 2: 5 items came back instead of 4"),
    "an unknown golden item": (
        golden(lambda a: a[0]["items"][-1].update(item_id="x")), r"golden\.jsonl expects item 'x', which the catalog"
    ),
    "a golden request with an unknown field": (
        golden(lambda a: a[0]["request"].update(temperature=2)), BAD_REQUEST
    ),
    "a golden request with a history that is one word": (
        golden(lambda a: a[0]["request"].update(history="i1")), BAD_REQUEST
    ),
    "a golden request with half a filter": (
        golden(lambda a: a[0]["request"].update(filter={"year": 1990})), BAD_REQUEST
    ),
    "a golden request with a filter of no column": (
        golden(lambda a: a[0]["request"].update(filter={"where": {"colour": {"eq": "red"}}})), BAD_REQUEST
    ),
    "a golden request with a filter that changes its answer": (
        golden(lambda a: a[0]["request"].update(filter={"include_ids": ["i1"]})), "golden answer 1: [01] items came"
    ),
    "a golden request that cannot be": (golden(lambda a: a[0]["request"].update(history=7)), BAD_REQUEST),
    "no golden answer": (golden(lambda a: a.clear()), r"golden\.jsonl holds no golden answer"),
    "golden answers without an item": (
        golden(lambda a: [x.update(items=[], request={"history": []}) for x in a]), r"golden\.jsonl holds no golden"
    ),
    "golden answers cut short": (bytes_of(layout.GOLDEN, half), r"golden\.jsonl cannot be read as golden answers"),
    "golden answers of another shape": (bytes_of(layout.GOLDEN, lambda _: b"[1]\n"), r"golden\.jsonl cannot be read"),
    "no golden answers": (without(layout.GOLDEN), r"golden\.jsonl cannot be read as golden answers"),
    # kinds of file
    "pickle": (lambda b: (b / "model" / "model.bin").write_bytes(b"x"), r"model/model\.bin is of a kind"),
    "code": (lambda b: (b / "model" / "modeling.py").write_text("x"), r"model/modeling\.py is of a kind"),
}  # fmt: skip
