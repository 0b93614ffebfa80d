"""What does the constraint cost: building the trie, keeping it, and a step beside an unconstrained one?

The model is of the TIGER size, with one vocabulary for all catalogs. The unconstrained engine is ours with the trie
taken out: the beams' children are all codes of a level, and everything else is the same.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.decode import race
from benchmarks.model_sizes import NUM_CODES, NUM_LEVELS, SIZES
from benchmarks.report import publish
from benchmarks.roofline import best_seconds
from benchmarks.synthetic import Shape, semantic_ids
from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.beam import BeamEngine
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.engine import Query
from genrec.decoding.engines import make_engine
from genrec.decoding.padding import pad_prompts
from genrec.decoding.selection import Children, Frontier, select
from genrec.trie import ItemTrie

HISTORY = 20


def unconstrained(engine: BeamEngine, prompt: list[int], beams: int) -> Callable[[], Frontier]:
    """The same search over all sequences of codes."""
    decoder, tokens = engine.decoder, engine.trie.tokens

    @torch.inference_mode()
    def search() -> Frontier:
        progress, hidden = decoder.prefill(pad_prompts([prompt], left=False), beams * NUM_LEVELS)
        frontier = Frontier.root(1, "cpu")
        for level in range(NUM_LEVELS):
            log_probs = decoder.head.log_probs(hidden, level).view(1, frontier.nodes.shape[1], -1)
            codes = torch.arange(log_probs.shape[2])
            nodes = frontier.nodes[:, :, None] * len(codes) + codes
            children = Children(nodes, torch.ones_like(nodes, dtype=torch.bool), log_probs)
            frontier = select(frontier, children, beams).trimmed()
            if level + 1 < NUM_LEVELS:
                hidden = decoder.step(progress, tokens[level][frontier.nodes % len(codes)], frontier.parents)
        return frontier

    return search


def measure(num_items: int, beams: int, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    size = SIZES[0]
    codes = semantic_ids(Shape(num_items=num_items, codebook_sizes=(NUM_CODES,) * NUM_LEVELS))
    paths = (codes + size.base_vocabulary + np.arange(NUM_LEVELS) * NUM_CODES).astype(np.int32)
    build_s = best_seconds(lambda: ItemTrie.from_sorted(paths), "cpu", repetitions=3)
    trie = ItemTrie.from_sorted(paths)
    start = time.perf_counter()
    on_device = DeviceTrie.of(trie, "cpu")
    upload_s = time.perf_counter() - start
    engine = make_engine(
        "beam", size.build(), trie, decoder_prefix_ids=size.decoder_prefix_ids, length_penalty=1.0, longest_prompt=128
    )
    assert isinstance(engine, BeamEngine)
    prompt = trie.paths[np.random.default_rng(0).integers(0, num_items, HISTORY)].ravel().tolist()
    query = Query(prompt, AllowedItems.all_but([], ItemMask.everything(num_items)))
    calls = {"constrained": lambda: engine.search([query], beams), "free": unconstrained(engine, prompt, beams)}
    best, _ = race(calls, seconds=seconds, most_rounds=1_000)
    return {
        "items": num_items,
        "build_s": build_s,
        "upload_s": upload_s,
        "megabytes": on_device.num_bytes / 2**20,
        "bytes_an_item": on_device.num_bytes / num_items,
        "step_ms": best["constrained"] / NUM_LEVELS * 1e3,
        "unconstrained_step_ms": best["free"] / NUM_LEVELS * 1e3,
        "constraint_adds": best["constrained"] / best["free"] - 1,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", nargs="*", type=int, default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each size")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    rows = [measure(num_items, arguments.beams, arguments.seconds) for num_items in arguments.items]
    publish("trie", rows, arguments.output)


if __name__ == "__main__":
    main()
