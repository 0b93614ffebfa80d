"""How quickly does `genrec score` get through a million users, in what memory, and how long would `generate` take?

`python -m benchmarks.score` makes users whose histories are those of real ones cut somewhere, runs the command on them
in processes of its own and watches the memory of all of them. Before that, in the same run, it answers a sample of
the same users with a plain loop of Hugging Face `generate`, at the best of several batch sizes and with all cores; the
items of that loop must be those of our engine. It exits with 1 if one differs, or a user is missing. Linux only.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import GenerationConfig

from benchmarks.report import publish
from genrec.bundle import Bundle
from genrec.known_items import KnownItems
from genrec.recommender import Recommender
from genrec.requests import Request

BATCH_SIZES = (1, 8, 32, 64)
MEMORY_INTERVAL_S = 5.0  # each look takes a third of a second of a core
_ROWS_AT_ONCE = 10_000


def users(interactions: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """User ids and histories: each a real user's without the test item, cut after an item drawn at random."""
    dice = random.Random(0)
    rows = pq.read_table(interactions, columns=["user_id", "item_id", "split"]).to_pydict()  # by user and time
    real: dict[str, list[str]] = {}
    for user, item, split in zip(rows["user_id"], rows["item_id"], rows["split"], strict=True):
        if split != "test":
            real.setdefault(user, []).append(item)
    histories = list(real.values())
    for number in range(count):
        history = dice.choice(histories)
        yield f"u{number}", history[: dice.randint(1, len(history))]


def write_users(interactions: Path, count: int, target: Path) -> None:
    """A Parquet file of them."""
    schema = pa.schema([("user_id", pa.string()), ("history", pa.list_(pa.string()))])
    made = users(interactions, count)
    with pq.ParquetWriter(target, schema) as writer:
        for first in range(0, count, _ROWS_AT_ONCE):
            part = [next(made) for _ in range(min(_ROWS_AT_ONCE, count - first))]
            columns = ([user for user, _ in part], [history for _, history in part])
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def plain_loop(bundle: Bundle, num_beams: int) -> Callable[[Sequence[list[str]]], list[list[str]]]:
    """What one writes without us: `generate` with a dictionary for a trie. Gives each history's items, best first."""
    item_of = {tuple(path): bundle.catalog.item_id(row) for row, path in enumerate(bundle.trie.paths.tolist())}
    children: dict[tuple[int, ...], list[int]] = {}
    for path in item_of:
        for depth in range(len(path)):
            if path[depth] not in (known := children.setdefault(path[:depth], [])):
                known.append(path[depth])
    config = GenerationConfig(
        num_beams=num_beams, num_return_sequences=num_beams, max_new_tokens=bundle.trie.num_levels, do_sample=False,
        length_penalty=bundle.manifest.generation.length_penalty, early_stopping=True, pad_token_id=0,
    )  # fmt: skip

    @torch.inference_mode()
    def answer(histories: Sequence[list[str]]) -> list[list[str]]:
        prompts = [bundle.encoder.encode(KnownItems.of(history, bundle.catalog).rows) for history in histories]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        found = bundle.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config,
            prefix_allowed_tokens_fn=lambda _, tokens: children[tuple(tokens[width:].tolist())],
        )  # fmt: skip
        paths = found[:, width:].view(len(histories), num_beams, -1).tolist()
        return [[item_of[tuple(path)] for path in of_one] for of_one in paths]

    return answer


def time_plain_loop(recommender: Recommender, sample: Sequence[list[str]]) -> list[dict[str, Any]]:
    """Rows/s of the plain loop at each batch size, and how many of its lists are not ours."""
    num_beams = recommender.bundle.manifest.generation.num_beams
    answer = plain_loop(recommender.bundle, num_beams)
    asked = [Request(tuple(history), k=num_beams, num_beams=num_beams, exclude_history=False) for history in sample]
    ours = [[item.item_id for item in one.items] for one in recommender.recommend(asked)]
    rows = []
    for size in BATCH_SIZES:
        answer(sample[:size])  # warm
        begin = time.perf_counter()
        theirs = [one for first in range(0, len(sample), size) for one in answer(sample[first : first + size])]
        took = time.perf_counter() - begin
        differ = sum(one != other for one, other in zip(ours, theirs, strict=True))
        rate = len(sample) / took
        rows.append({"what": f"generate, batches of {size}", "rows": len(sample), "rows/s": rate, "differ": differ})
    return rows


def run_score(
    bundle: Path, source: Path, output: Path, flags: Sequence[str]
) -> tuple[float, list[tuple[float, float]]]:
    """The command; how long it took in s, and the memory of all its processes over that time as (s, MiB)."""
    command = [sys.executable, "-m", "genrec", "score", "--bundle", str(bundle), "--input", str(source)]
    begin = time.perf_counter()
    process = psutil.Popen([*command, "--output", str(output), *flags])
    memory = []
    while process.poll() is None:
        memory.append((time.perf_counter() - begin, resident_mib(process)))
        time.sleep(MEMORY_INTERVAL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin, memory


def resident_mib(process: psutil.Process) -> float:
    """Of a process and all below it. What they share is counted once: proportional set sizes are added."""
    total = 0
    for one in [process, *_children(process)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total / 2**20


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def in_tenths(memory: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    """Cut into ten, none of them empty."""
    edges = [place * len(memory) // 10 for place in range(11)]
    return [memory[first : max(last, first + 1)] for first, last in pairwise(edges)]


def missing_or_out_of_order(output: Path, count: int) -> int:
    """How many of the users u0, u1, … are not where they belong in the output."""
    parts = json.loads((output / "_MANIFEST.json").read_text())["parts"]
    place, wrong = 0, 0
    for part in parts:
        for user in pq.read_table(output / part["file"], columns=["user_id"]).column("user_id").to_pylist():
            wrong += user != f"u{place}"
            place += 1
    return wrong + abs(count - place)


def main() -> None:
    """Parse flags, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/demo"), help="a decoder-only one")
    parser.add_argument("--interactions", type=Path, default=Path("runs/demo/prepare/interactions.parquet"))
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=512, help="users that generate answers")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("flags", nargs="*", help="of genrec score, after --")
    arguments = parser.parse_args()

    sample = [history for _, history in users(arguments.interactions, arguments.sample)]
    rows = time_plain_loop(Recommender.load(arguments.bundle, device="cpu"), sample)
    with tempfile.TemporaryDirectory(prefix="genrec-") as scratch:
        source, output = Path(scratch) / "users.parquet", Path(scratch) / "scored"
        write_users(arguments.interactions, arguments.users, source)
        took, memory = run_score(arguments.bundle, source, output, arguments.flags)
        wrong = missing_or_out_of_order(output, arguments.users)
    tenths = [max(mib for _, mib in part) for part in in_tenths(memory)]
    rate = arguments.users / took
    times = rate / max(row["rows/s"] for row in rows)
    rows.append({"what": "genrec score", "rows": arguments.users, "rows/s": rate, "times": times, "differ": wrong})
    rows[-1]["peak MiB"] = max(tenths)
    print("MiB in each tenth of the run:", *(f"{mib:.0f}" for mib in tenths))
    columns = ("what", "rows", "rows/s", "times", "differ", "peak MiB")
    shown = [{name: row.get(name) for name in columns} for row in rows]
    publish("score", shown, arguments.output, memory_tenths=tenths, seconds=took)
    sys.exit(any(row["differ"] for row in rows))


if __name__ == "__main__":
    main()
