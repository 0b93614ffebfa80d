from collections import Counter

import numpy as np
import pytest

from genrec.history import HistoryEncoder, Prompt
from genrec.models import Architecture
from training.batches import Batch
from training.examples import LastItemExamples, WindowExamples
from training.mixed_examples import MixedExamples, Part, tasks_of

# Item r is the path (100 + r, 200 + r).
PATHS = np.stack([np.arange(100, 160), np.arange(200, 260)], axis=1).astype(np.int32)


def examples_of(first: int, sizes: tuple[int, ...], prefix: int, architecture: Architecture) -> LastItemExamples:
    encoder = HistoryEncoder(Prompt(prefix_ids=(prefix,), max_history_items=9), PATHS)
    every = np.arange(first, first + sum(sizes), dtype=np.int32)
    sequences = np.split(every, np.cumsum(sizes)[:-1])
    return LastItemExamples(encoder, architecture, sequences, [1] * len(sequences))


def mixture(architecture: Architecture, counts: tuple[int, int] = (5, 9), seed: int = 1) -> MixedExamples:
    return MixedExamples(
        (
            Part("long", examples_of(0, (6, 4), 7, architecture), counts[0], 0),  # 8 examples
            Part("short", examples_of(30, (2, 3, 2), 8, architecture), counts[1], 1),  # 4
        ),
        seed,
    )


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_a_batch_of_several_tasks_is_its_examples_side_by_side(architecture: Architecture) -> None:
    mixed = mixture(architecture)
    indices = np.random.default_rng(0).permutation(len(mixed))
    batch = mixed.batch(indices)
    alone = [mixed[int(index)] for index in indices]
    assert [batch.example(place) for place in range(len(alone))] == alone
    assert {example["input_ids"][0] for example in alone} == {7, 8}
    side_by_side = Batch.of(alone)
    for name in ("input_ids", "lengths", "labels", "label_lengths"):
        assert np.array_equal(getattr(batch, name), getattr(side_by_side, name)), name
    assert mixed.lengths()[indices].tolist() == [len(example["input_ids"]) for example in alone]


def test_an_epoch_has_as_many_of_each_task_as_it_should_and_each_example_about_equally_often() -> None:
    mixed = mixture("causal", counts=(5, 9))
    assert len(mixed) == 14
    assert [len(places) for places in mixed.places()] == [5, 9]
    every = [tuple(mixed[index]["input_ids"]) for index in range(len(mixed))]
    long, short = Counter(ids for ids in every if ids[0] == 7), Counter(ids for ids in every if ids[0] == 8)
    assert sum(long.values()) == 5 and set(long.values()) == {1}
    assert sum(short.values()) == 9 and sorted(short.values()) == [2, 2, 2, 3]


def test_which_examples_an_epoch_has_follows_from_seed_and_epoch_and_not_from_other_tasks() -> None:
    def drawn(mixed: MixedExamples, epoch: int, task: int) -> list[list[int]]:
        mixed.set_epoch(epoch)
        return [mixed[index]["input_ids"] for index in range(len(mixed)) if mixed[index]["input_ids"][0] == task]

    assert drawn(mixture("causal"), 3, 7) == drawn(mixture("causal"), 3, 7)
    assert drawn(mixture("causal"), 3, 7) != drawn(mixture("causal"), 4, 7)
    assert drawn(mixture("causal"), 3, 7) != drawn(mixture("causal", seed=2), 3, 7)
    assert drawn(mixture("causal", counts=(5, 3)), 3, 7) == drawn(mixture("causal", counts=(5, 9)), 3, 7)


def test_in_some_epochs_every_example_comes_to_its_turn() -> None:
    mixed, seen = mixture("causal", counts=(5, 1)), set()
    for epoch in range(20):
        mixed.set_epoch(epoch)
        seen |= {tuple(mixed[index]["input_ids"]) for index in range(len(mixed))}
    assert len(seen) == 8 + 4


def test_the_examples_of_a_part_are_told_the_epoch() -> None:
    encoder = HistoryEncoder(Prompt(prefix_ids=(7,), max_history_items=2), PATHS)
    windows = WindowExamples(encoder, [np.arange(40, dtype=np.int32)], seed=1)
    mixed = MixedExamples((Part("next_item", windows, len(windows), 0),), 1)
    mixed.set_epoch(5)
    assert mixed.epoch == windows.epoch == 5
    assert [mixed[index] for index in range(len(mixed))] == [windows[index] for index in range(len(windows))]


def test_only_a_mixture_has_tasks_to_tell_of() -> None:
    mixed = mixture("causal")
    assert [str(part) for part in tasks_of(mixed)] == ["5 long (of 8)", "9 short (of 4)"]
    assert str(Part("x", mixed, 1_000, 0, left_out=2)) == "1,000 x (of 14; 2 more without a title)"
    assert tasks_of(mixed.parts[0].examples) == ()
