"""How much faster is our engine than `generate`, and how far from what the machine could do?

Every cell runs the same random histories through our engine, `generate` with a Python callback (stock) and `generate`
with the callback replaced by tensor operations, one after another in the same process, and checks that the items agree.
What would cost more than the budget is not run. Times are the least disturbed
of the repetitions; ratios are of those.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from benchmarks.model_sizes import NUM_CODES, NUM_LEVELS, SIZES, ModelSize
from benchmarks.report import publish
from benchmarks.roofline import Peak, Work, measure_peak, of_generate, ours
from benchmarks.synthetic import Shape, semantic_ids
from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.beam import BeamEngine
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.engine import Beam, Query
from genrec.decoding.engines import make_engine
from genrec.decoding.padding import pad_prompts
from genrec.models import DTYPES
from genrec.trie import ItemTrie, sort_order

NUM_ITEMS = 12_101  # of Amazon Beauty
BEAMS = (10, 20, 50)
REQUESTS = (1, 8, 32)
HISTORIES = (20, 50)
COLUMNS = (
    "ours_ms", "stock_ms", "vectorised_ms", "ratio", "ratio_vectorised", "roofline_ms", "of_roofline",
    "prefill_ms", "steps_ms", "head_ms", "selection_ms", "host_ms",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cell:
    """One model with one load."""

    size: ModelSize
    model: PreTrainedModel
    trie: ItemTrie
    beams: int
    requests: int
    history: int

    @property
    def prompts(self) -> list[list[int]]:
        """Random histories, all of one length."""
        rng = np.random.default_rng(self.history)
        rows = rng.integers(0, self.trie.num_items, (self.requests, self.history))
        return [self.trie.paths[row].ravel().tolist() for row in rows]

    @property
    def queries(self) -> list[Query]:
        """The same for our engine."""
        everything = ItemMask.everything(self.trie.num_items)
        return [Query(prompt, AllowedItems.all_but([], everything)) for prompt in self.prompts]


def item_trie(size: ModelSize) -> ItemTrie:
    """A catalog of the size of Amazon Beauty: three levels of 256 codes and a collision level."""
    codes = semantic_ids(Shape(num_items=NUM_ITEMS, codebook_sizes=(NUM_CODES,) * (NUM_LEVELS - 1)))
    codes = np.hstack([codes, np.zeros((len(codes), 1), dtype=codes.dtype)])
    paths = (codes + size.base_vocabulary + np.arange(NUM_LEVELS) * NUM_CODES).astype(np.int32)
    return ItemTrie.from_sorted(paths[sort_order(paths)])


class TrieMask(LogitsProcessor):  # type: ignore[misc]  # transformers is not followed
    """The trie as tensor operations: what a careful user of `generate` would write."""

    def __init__(self, trie: DeviceTrie, start: int, vocabulary: int) -> None:
        self._trie, self._start, self._vocabulary = trie, start, vocabulary

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `LogitsProcessor`."""
        nodes = torch.zeros(len(input_ids), dtype=torch.int64, device=input_ids.device)
        for level, tokens in enumerate(input_ids[:, self._start :].T):
            children, exists = self._children(level, nodes)
            found = exists & (self._trie.token_of(level, children) == tokens[:, None])
            nodes = children.gather(1, found.int().argmax(dim=1, keepdim=True)).squeeze(1)
        level = input_ids.shape[1] - self._start
        children, exists = self._children(level, nodes)
        tokens = self._trie.token_of(level, children)
        kept = torch.where(exists, scores.gather(1, tokens), -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter_reduce_(1, tokens, kept, "amax")

    def _children(self, level: int, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, past = self._trie.indptr[level][nodes], self._trie.indptr[level][nodes + 1]
        children = first[:, None] + torch.arange(self._trie.widest[level], device=nodes.device)
        return children.clamp(max=self._trie.num_nodes(level + 1) - 1).long(), children < past[:, None]


def generate(cell: Cell, vectorised: bool) -> Callable[[], Any]:
    """A call of `generate` for the cell's requests."""
    seq2seq = cell.model.config.is_encoder_decoder
    padded = pad_prompts(cell.prompts, left=not seq2seq, device=cell.model.device)
    start = 1 if seq2seq else padded.ids.shape[1]
    config = GenerationConfig(
        num_beams=cell.beams,
        num_return_sequences=cell.beams,
        max_new_tokens=NUM_LEVELS,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        decoder_start_token_id=0 if seq2seq else None,
    )
    if vectorised:
        mask = TrieMask(DeviceTrie.of(cell.trie, cell.model.device), start, cell.size.vocabulary)
        constraint: dict[str, Any] = {"logits_processor": LogitsProcessorList([mask])}
    else:
        children: dict[tuple[int, ...], list[int]] = {}
        for path in cell.trie.paths.tolist():
            for level, token in enumerate(path):
                below = children.setdefault(tuple(path[:level]), [])
                if not below or below[-1] != token:
                    below.append(token)
        constraint = {
            "prefix_allowed_tokens_fn": lambda _, ids: children.get(
                tuple(ids[start:].tolist()), [int(cell.trie.token[0][0])]
            )
        }

    def call() -> torch.Tensor:
        with torch.inference_mode():
            out = cell.model.generate(
                input_ids=padded.ids, attention_mask=padded.mask, generation_config=config, **constraint
            )
        found: torch.Tensor = out.sequences[:, start:].cpu()
        return found

    return call


class Split:
    """Where our engine spends its time: it is asked again with a clock around each part."""

    def __init__(self, engine: BeamEngine) -> None:
        self.engine = engine
        self.seconds = dict.fromkeys(("prefill", "steps", "head", "decode"), 0.0)

    def run(self, queries: Sequence[Query], beams: int) -> dict[str, float]:
        """Milliseconds by part."""
        decoder, head = self.engine.decoder, self.engine.decoder.head
        parts = [
            (decoder, "prefill", "prefill"),
            (decoder, "step", "steps"),
            (head, "log_probs", "head"),
        ]
        for owner, method, part in parts:
            setattr(owner, method, self._timed(getattr(owner, method), part))
        decode = BeamEngine._decode
        BeamEngine._decode = self._timed(decode, "decode")  # type: ignore[method-assign]  # a clock, for one run
        start = time.perf_counter()
        self.engine.search(queries, beams)
        total = time.perf_counter() - start
        BeamEngine._decode = decode  # type: ignore[method-assign]  # and off again
        for owner, method, _ in parts:
            delattr(owner, method)
        inside = self.seconds["prefill"] + self.seconds["steps"] + self.seconds["head"]
        split = {
            **{part: self.seconds[part] for part in ("prefill", "steps", "head")},
            "selection": self.seconds["decode"] - inside,
            "host": total - self.seconds["decode"],
        }
        return {f"{part}_ms": seconds * 1e3 for part, seconds in split.items()}

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:  # noqa: ANN401  whatever it wraps takes and gives
            _synchronize()
            start = time.perf_counter()
            result = function(*arguments)
            _synchronize()
            self.seconds[part] += time.perf_counter() - start
            return result

        return timed


def measure(cell: Cell, engine: BeamEngine, peak: Peak, budget: Work) -> dict[str, Any]:
    """One row of the table."""
    shape = {
        "model": cell.size.name,
        "history": cell.history,
        "beams": cell.beams,
        "requests": cell.requests,
    }
    queries = cell.queries
    tokens = cell.history * NUM_LEVELS
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: engine.search(queries, cell.beams)}
    work = ours(cell.model, cell.requests, cell.beams, tokens)
    if sum(phase.flops for phase in work) > budget.flops:
        return shape | dict.fromkeys(COLUMNS)
    theirs = of_generate(cell.model, cell.requests, cell.beams, tokens)
    if theirs.flops <= budget.flops and theirs.bytes <= budget.bytes:
        calls |= {"stock": generate(cell, vectorised=False), "vectorised": generate(cell, vectorised=True)}
    best, results = race(calls)
    if "stock" in calls:
        _check_same(cell, results)
    floor = sum(phase.seconds(peak) for phase in work)
    splits = [Split(engine).run(queries, cell.beams) for _ in range(3 if best["ours"] < 1 else 1)]
    split = min(splits, key=lambda split: sum(split.values()))
    stock, vectorised = best.get("stock"), best.get("vectorised")
    return shape | {
        "ours_ms": best["ours"] * 1e3,
        "stock_ms": stock and stock * 1e3,
        "vectorised_ms": vectorised and vectorised * 1e3,
        "ratio": stock and stock / best["ours"],
        "ratio_vectorised": vectorised and vectorised / best["ours"],
        "roofline_ms": floor * 1e3,
        "of_roofline": floor / best["ours"],
        **split,
    }


def race(
    calls: dict[str, Callable[[], Any]], seconds: float = 3.0, most_rounds: int = 15
) -> tuple[dict[str, float], dict[str, Any]]:
    """The best time of each call, all taken in turns for some seconds; and their results.

    The first round warms up, but a call that takes longer than all the rounds together is not made again.
    """
    results: dict[str, Any] = {}
    best: dict[str, float] = {}
    for name, call in calls.items():
        best[name] = _clock(call, results, name)
    again = {name: call for name, call in calls.items() if best[name] < seconds}
    best |= dict.fromkeys(again, float("inf"))
    begin = time.perf_counter()
    rounds = 0
    while again and (rounds < 2 or (time.perf_counter() - begin < seconds and rounds < most_rounds)):
        for name, call in again.items():
            best[name] = min(best[name], _clock(call, results, name))
        rounds += 1
    return best, results


def _clock(call: Callable[[], Any], results: dict[str, Any], name: str) -> float:
    _synchronize()
    start = time.perf_counter()
    results[name] = call()
    _synchronize()
    return time.perf_counter() - start


def lora(size: ModelSize, device: str, dtype: torch.dtype, trie: ItemTrie) -> dict[str, Any]:
    """`generate` with an adapter beside the model and with the same one merged."""
    targets = ["q", "v"] if size.kind == "seq2seq" else ["q_proj", "v_proj"]
    unmerged = get_peft_model(size.build(device, dtype), LoraConfig(r=16, target_modules=targets)).eval()
    merged = (
        get_peft_model(size.build(device, dtype), LoraConfig(r=16, target_modules=targets)).eval().merge_and_unload()
    )
    merged.generation_config = GenerationConfig()
    calls = {
        "unmerged": generate(Cell(size, unmerged, trie, 20, 1, 20), vectorised=True),
        "merged": generate(Cell(size, merged, trie, 20, 1, 20), vectorised=True),
    }
    best, _ = race(calls, seconds=6.0)
    return {
        "model": size.name,
        "unmerged_ms": best["unmerged"] * 1e3,
        "merged_ms": best["merged"] * 1e3,
        "ratio": best["unmerged"] / best["merged"],
    }


def _check_same(cell: Cell, results: dict[str, Any]) -> None:
    for index, beam in enumerate(results["ours"]):
        assert isinstance(beam, Beam), beam
        for name in ("stock", "vectorised"):
            paths = results[name].view(cell.requests, cell.beams, -1)[index].tolist()
            rows = [cell.trie.descend(path) for path in paths]
            if cell.model.dtype == torch.float32 and rows != beam.rows.tolist():
                raise SystemExit(f"{cell.size.name}: {name} found other items than our engine")


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
    parser.add_argument("--models", nargs="*", default=[size.name for size in SIZES])
    parser.add_argument("--beams", nargs="*", type=int, default=BEAMS)
    parser.add_argument("--requests", nargs="*", type=int, default=REQUESTS)
    parser.add_argument("--history", nargs="*", type=int, default=HISTORIES)
    parser.add_argument("--budget-tflop", type=float, default=3.0, help="what costs more is not run")
    parser.add_argument("--budget-gb", type=float, default=4.0, help="nor a generate whose caches take more")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    dtype = DTYPES[arguments.dtype]
    budget = Work(arguments.budget_tflop * 1e12, arguments.budget_gb * 1e9)
    peak = measure_peak(arguments.device, dtype)
    rows, adapters = [], []
    for size in (size for size in SIZES if size.name in arguments.models):
        trie = item_trie(size)
        model = size.build(arguments.device, dtype)
        engine = make_engine(
            "beam", model, trie, decoder_prefix_ids=size.decoder_prefix_ids, length_penalty=1.0, longest_prompt=1_024
        )
        assert isinstance(engine, BeamEngine)
        for history in arguments.history:
            for requests in arguments.requests:
                for beams in arguments.beams:
                    cell = Cell(size, model, trie, beams, requests, history)
                    rows.append(measure(cell, engine, peak, budget))
                    print({name: rows[-1][name] for name in list(rows[-1])[:11]}, flush=True)
        if size.name in ("t5-small", "smollm2-135m"):
            adapters.append(lora(size, arguments.device, dtype, trie))
    publish(
        "decode",
        rows,
        arguments.output,
        lora=adapters,
        peak={"gflops": peak.flops / 1e9, "gbytes_a_second": peak.bytes / 1e9},
        device=arguments.device,
        dtype=arguments.dtype,
    )


if __name__ == "__main__":
    main()
