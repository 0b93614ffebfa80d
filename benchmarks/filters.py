"""What does a filter inside the search cost, in a small catalog and in a large one?

The model is of the TIGER size. Each row is one kind of limit beside no limit at all, in turns in one process, its mask
and prefix sum made before; what the first use of a mask costs is a column of its own.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decode import race
from benchmarks.model_sizes import NUM_CODES, NUM_LEVELS, SIZES
from benchmarks.report import publish
from benchmarks.synthetic import Shape, semantic_ids
from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.engine import Query
from genrec.decoding.engines import make_engine
from genrec.trie import ItemTrie

HISTORY = 20


def measure(num_items: int, beams: int, requests: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of one catalog."""
    size = SIZES[0]
    codes = semantic_ids(Shape(num_items=num_items, codebook_sizes=(NUM_CODES,) * NUM_LEVELS))
    paths = (codes + size.base_vocabulary + np.arange(NUM_LEVELS) * NUM_CODES).astype(np.int32)
    trie = ItemTrie.from_sorted(paths)
    engine = make_engine(
        "beam", size.build(), trie, decoder_prefix_ids=size.decoder_prefix_ids, length_penalty=1.0, longest_prompt=128
    )
    rng = np.random.default_rng(0)
    prompts = [trie.paths[rows].ravel().tolist() for rows in rng.integers(0, num_items, (requests, HISTORY))]

    def queries(mask: ItemMask, excluded: int) -> list[Query]:
        gone = rng.integers(0, num_items, (requests, excluded))
        return [
            Query(prompt, AllowedItems.all_but(rows.tolist(), mask)) for prompt, rows in zip(prompts, gone, strict=True)
        ]

    everything = ItemMask.everything(num_items)
    limits = {
        "none": (everything, 0),
        "exclude 50": (everything, 50),
        "exclude 1,000": (everything, 1_000),
        "allow 50 %": (ItemMask(rng.random(num_items) < 0.5), 0),
        "allow 1 %": (ItemMask(rng.random(num_items) < 0.01), 0),
    }
    first_ms = {}
    calls: dict[str, Callable[[], object]] = {}
    for name, (mask, excluded) in limits.items():
        asked = queries(mask, excluded)
        start = time.perf_counter()
        _ = mask.before
        engine.search(asked, beams)
        first_ms[name] = (time.perf_counter() - start) * 1e3
        calls[name] = partial(engine.search, asked, beams)
    best, _ = race(calls, seconds=seconds, most_rounds=1_000)
    return [
        {
            "items": num_items,
            "requests": requests,
            "limit": name,
            "ms": best[name] * 1e3,
            "adds": best[name] / best["none"] - 1,
            "first_use_ms": first_ms[name],
        }
        for name in limits
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", nargs="*", type=int, default=[12_101, 10**6])
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--requests", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=15.0, help="for each catalog and number of requests")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    rows = []
    for num_items in arguments.items:
        for requests in arguments.requests:
            rows += measure(num_items, arguments.beams, requests, arguments.seconds)
    publish("filters", rows, arguments.output)


if __name__ == "__main__":
    main()
