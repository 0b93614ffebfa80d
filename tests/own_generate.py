"""A bundle of a plug-in family read by its own classes and Hugging Face alone: what its own `generate` recommends.

Beside the plug-in, which registers itself, nothing of ours: manifest, items and model are read as files.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSeq2SeqLM

from genrec.item_tokens import ItemTokens
from genrec.model_plugin import ModelPlugin

Scored = list[tuple[str, float]]


def own_generate(bundle: Path, plugin: ModelPlugin, histories: Sequence[Sequence[str]], k: int) -> list[Scored]:
    """The k best items after each history, seen ones too, with `sequences_scores`."""
    plugin.register()
    model = AutoModelForSeq2SeqLM.from_pretrained(bundle / "model").eval()
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    ids = manifest["item_token_ids"]
    table = pq.read_table(bundle / "catalog/items.parquet")
    codes = [table.column(f"code_{level}").to_pylist() for level in range(len(ids))]
    paths = [tuple(ids[level][code] for level, code in enumerate(row)) for row in zip(*codes, strict=True)]
    path_of = dict(zip(table.column("item_id").to_pylist(), paths, strict=True))
    item_of = {path: item for item, path in path_of.items()}
    children: dict[tuple[int, ...], set[int]] = {}
    for path in paths:
        for level, token in enumerate(path):
            children.setdefault(path[:level], set()).add(token)
    inputs = plugin.model_inputs(ItemTokens(tuple(map(tuple, ids))))
    found = []
    for history in histories:
        prompt = torch.tensor([_prompt(manifest["prompt"], [path_of[item] for item in history])])
        mask = torch.ones_like(prompt)
        with torch.inference_mode():
            out = model.generate(
                prompt, attention_mask=mask, **inputs(prompt, mask), num_beams=20, num_return_sequences=k,
                max_new_tokens=len(ids), min_new_tokens=len(ids), do_sample=False, length_penalty=1.0,
                prefix_allowed_tokens_fn=lambda _, given: sorted(children.get(tuple(given[1:].tolist()), {0})),
                output_scores=True, return_dict_in_generate=True,
            )  # fmt: skip
        items = [item_of[tuple(row[1:].tolist())] for row in out.sequences]
        found.append(list(zip(items, out.sequences_scores.tolist(), strict=True)))
    return found


def _prompt(pieces: dict[str, Any], paths: Sequence[Sequence[int]]) -> list[int]:
    ids = list(pieces["prefix_ids"])
    for place, path in enumerate(paths[-pieces["max_history_items"] :]):
        ids += [*(pieces["item_separator_ids"] if place else ()), *path]
    return ids + list(pieces["suffix_ids"])
