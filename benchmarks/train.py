"""How fast is training, beside a plain Trainer loop: steps and tokens a second, and what building batches takes of it?

The plain loop is what one writes first: a data set that encodes an example when it is asked for one, a collator that
pads lists, `transformers.Trainer` as it comes. Ours builds a batch from arrays (`training/batches.py`). Both train the
same random model on the same examples; *by length* also puts examples of like lengths together, *compiled* adds
`torch_compile` with a few fixed widths. Ways are run in turns and the best round of each counts.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.model_sizes import NUM_CODES, NUM_LEVELS, SIZES
from benchmarks.report import publish
from genrec.history import IGNORE, HistoryEncoder, Prompt
from genrec.models import Architecture
from training.examples import Collator, Example, LastItemExamples, WindowExamples
from training.trainer import GROUPED, make_trainer

HISTORY = 20
WARM_UP_STEPS = 3


@dataclass(frozen=True, eq=False)
class Task:
    """A model and what it learns from.

    Attributes:
        name: Shown in the table.
        architecture: Of the model.
        build: Makes the model anew.
        examples: Our examples.
        plain: The same examples, encoded one by one.
    """

    name: str
    architecture: Architecture
    build: Callable[[], PreTrainedModel]
    examples: LastItemExamples | WindowExamples
    plain: Dataset[Example]


class PlainLast(Dataset[Example]):
    """A history and the item that followed, encoded when asked for."""

    def __init__(self, encoder: HistoryEncoder, sequences: Sequence[npt.NDArray[np.int32]]) -> None:
        self.encoder = encoder
        self.places = [(rows, place) for rows in sequences for place in range(1, len(rows))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        rows, place = self.places[index]
        history = rows[max(0, place - self.encoder.prompt.max_history_items) : place].tolist()
        return {"input_ids": self.encoder.encode(history), "labels": self.encoder.target(int(rows[place]))}


class PlainWindows(Dataset[Example]):
    """Consecutive items with a loss on each, encoded when asked for."""

    def __init__(self, encoder: HistoryEncoder, sequences: Sequence[npt.NDArray[np.int32]]) -> None:
        size = encoder.prompt.max_history_items + 1
        self.encoder = encoder
        self.windows = [rows[at : at + size] for rows in sequences for at in range(0, len(rows), size)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Example:
        input_ids, labels = self.encoder.window(self.windows[index].tolist())
        return {"input_ids": input_ids, "labels": labels}


def pad_lists(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """The plain collator."""
    width = max(len(example["input_ids"]) for example in examples)
    wide = max(len(example["labels"]) for example in examples)
    rows = [example["input_ids"] + [0] * (width - len(example["input_ids"])) for example in examples]
    masks = [[1] * len(example["input_ids"]) + [0] * (width - len(example["input_ids"])) for example in examples]
    labels = [example["labels"] + [IGNORE] * (wide - len(example["labels"])) for example in examples]
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(masks),
        "labels": torch.tensor(labels),
    }


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())


class Counted:
    """A collator, and what went through it."""

    def __init__(self, collate: Callable[[Any], dict[str, torch.Tensor]]) -> None:
        self.collate, self.tokens, self.cells = collate, 0, 0

    def __call__(self, examples: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401  (a list of examples, or a batch already)
        """The batch."""
        batch = self.collate(examples)
        self.tokens += int(batch["attention_mask"].sum())
        self.cells += batch["attention_mask"].numel()
        return batch


def made_up_sequences(users: int) -> list[npt.NDArray[np.int32]]:
    """Histories of 5 items and more, as in data that are filtered to five interactions each."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(5 + rng.geometric(0.15, size=users), 200)
    return [rng.integers(0, 12_101, size=length).astype(np.int32) for length in lengths]


def tasks(users: int) -> list[Task]:
    """T5 of TIGER's size with one target an example; a small Llama with a loss on each item of a window."""
    rng = np.random.default_rng(0)
    paths = rng.integers(0, NUM_CODES, (12_101, NUM_LEVELS)) + 4 + np.arange(NUM_LEVELS) * NUM_CODES
    sequences = made_up_sequences(users)
    asked = HistoryEncoder(Prompt(suffix_ids=(1,), max_history_items=HISTORY), paths.astype(np.int32))
    read = HistoryEncoder(Prompt(prefix_ids=(3,), max_history_items=HISTORY), paths.astype(np.int32))
    tiger, last = SIZES[0], LastItemExamples(asked, "seq2seq", sequences, [1] * len(sequences))
    windows = WindowExamples(read, sequences, seed=0)
    return [
        Task("tiger, last item", "seq2seq", tiger.build, last, PlainLast(asked, sequences)),
        Task("llama, windows", "causal", lambda: small_llama(tiger.vocabulary), windows, PlainWindows(read, sequences)),
    ]


def small_llama(vocabulary: int) -> PreTrainedModel:
    """Of the demo's size."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=vocabulary, tie_word_embeddings=False, pad_token_id=0))


def arguments(architecture: Architecture, output: str, batch: int, steps: int, **more: object) -> TrainingArguments:
    """Of one run: no evaluation, no checkpoints, no log."""
    arguments_class = Seq2SeqTrainingArguments if architecture == "seq2seq" else TrainingArguments
    return arguments_class(
        output_dir=output,
        per_device_train_batch_size=batch,
        max_steps=steps + WARM_UP_STEPS,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        **more,
    )


def run(task: Task, way: str, batch: int, steps: int, bf16: bool) -> dict[str, float]:
    """Train for some steps; steps and tokens a second of all but the first ones, and the share of padding."""
    clock = Clock()
    more: dict[str, object] = {"bf16": bf16}
    if way == "by length":
        more["train_sampling_strategy"] = GROUPED
    if way == "compiled":
        more["torch_compile"] = True
    counted = Counted(pad_lists if way == "plain" else Collator(pad_to_multiple_of=32 if way == "compiled" else 1))
    with TemporaryDirectory() as output:
        parts = {"model": task.build(), "data_collator": counted, "callbacks": [clock]}
        args = arguments(task.architecture, output, batch, steps, **more)
        if way == "plain":
            trainer = Trainer(args=args, train_dataset=task.plain, **parts)
            trainer.remove_callback(PrinterCallback)
        else:
            trainer = make_trainer(task.architecture, args, train_dataset=task.examples, **parts)
        trainer.train()
    taken = clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]
    tokens_a_step = counted.tokens / len(clock.ends)
    return {
        "steps_s": steps / taken,
        "tokens_s": tokens_a_step * steps / taken,
        "padding": 1 - counted.tokens / counted.cells,
    }


def batch_ms(task: Task, way: str, batch: int, batches: int = 50) -> float:
    """Milliseconds to build a batch and nothing else, over a data loader as in training."""
    data = task.plain if way == "plain" else task.examples
    collate: Callable[[Any], Any] = pad_lists if way == "plain" else Collator()
    loader = iter(DataLoader(data, batch_size=batch, shuffle=True, collate_fn=collate, drop_last=True))
    next(loader)
    start = time.perf_counter()
    done = sum(1 for _, _ in zip(range(batches), loader, strict=False))
    return (time.perf_counter() - start) / max(done, 1) * 1e3


def measure(task: Task, batch: int, steps: int, rounds: int, ways: Sequence[str], bf16: bool) -> list[dict[str, Any]]:
    """A row a way; each ran in every round, and its best one counts."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    built: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(run(task, way, batch, steps, bf16))
            built[way].append(batch_ms(task, way, batch))
    best = {way: max(results, key=lambda result: result["steps_s"]) for way, results in found.items()}
    return [
        {
            "model": task.name,
            "way": way,
            "batch": batch,
            "steps_s": best[way]["steps_s"],
            "tokens_s": best[way]["tokens_s"],
            "times_plain": best[way]["tokens_s"] / best["plain"]["tokens_s"],
            "padding": best[way]["padding"],
            "build_ms": min(built[way]),
            "build_times_plain": min(built["plain"]) / min(built[way]),
            "step_ms": 1e3 / best[way]["steps_s"],
        }
        for way in ways
    ]


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256], help="batch sizes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--compile", action="store_true", help="also with torch_compile, which takes minutes on a CPU")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args()
    ways = ["plain", "ours", "by length", *(["compiled"] if given.compile else [])]
    rows = [
        row
        for task in tasks(given.users)
        for batch in given.batches
        for row in measure(task, batch, given.steps, given.rounds, ways, given.bf16)
    ]
    publish("train", rows, given.output, users=given.users, bf16=given.bf16)


if __name__ == "__main__":
    main()
