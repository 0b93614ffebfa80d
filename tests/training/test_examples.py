import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.history import IGNORE, HistoryEncoder, Prompt
from genrec.models import Architecture
from training.examples import Collator, LastItemExamples, MaskedExamples, WindowExamples

LEVELS = 2
# Item r is the path (100 + r, 200 + r): an item is known again by its first token.
PATHS = np.stack([np.arange(100, 160), np.arange(200, 260)], axis=1).astype(np.int32)

pieces = st.lists(st.integers(1, 9), max_size=2).map(tuple)
sequences = st.lists(st.lists(st.integers(0, 59), min_size=2, max_size=14), min_size=1, max_size=4)


def encoder(prefix: tuple[int, ...], between: tuple[int, ...], suffix: tuple[int, ...], newest: int) -> HistoryEncoder:
    prompt = Prompt(prefix_ids=prefix, item_separator_ids=between, suffix_ids=suffix, max_history_items=newest)
    return HistoryEncoder(prompt, PATHS)


def as_rows(lists: list[list[int]]) -> list[np.ndarray]:
    return [np.array(rows, dtype=np.int32) for rows in lists]


def items_of(ids: list[int]) -> list[int]:
    return [token - 100 for token in ids if 100 <= token < 200]


def targets(labels: list[int]) -> list[int]:
    """Where the labels of an item begin."""
    assert all((labels[place] >= 200) == (labels[place - 1] in range(100, 200)) for place in range(1, len(labels)))
    return [place for place, label in enumerate(labels) if 100 <= label < 200]


@given(sequences, pieces, pieces, st.integers(1, 6), st.integers(0, 5), st.integers(0, 3))
def test_what_stands_before_each_labelled_item_of_a_window_is_the_prompt_that_would_be_served(
    lists: list[list[int]], prefix: tuple[int, ...], between: tuple[int, ...], newest: int, seed: int, epoch: int
) -> None:
    items = encoder(prefix, between, between, newest)
    examples = WindowExamples(items, as_rows(lists), seed)
    examples.set_epoch(epoch)
    for index in range(len(examples)):
        example = examples[index]
        ids, labels = example["input_ids"], example["labels"]
        shown = items_of(ids)
        assert len(labels) == len(ids)
        assert [label for label in labels if label != IGNORE] == [
            token for place in targets(labels) for token in ids[place : place + LEVELS]
        ]
        asked = targets(labels)
        assert len(asked) == len(shown) - bool(between) >= 1
        for place in asked:
            history = items_of(ids[:place])
            assert ids[:place] == items.encode(history)
            assert len(history) <= newest


@given(sequences, st.integers(1, 6), st.integers(0, 5))
def test_windows_are_consecutive_items_of_their_sequence(lists: list[list[int]], newest: int, seed: int) -> None:
    examples = WindowExamples(encoder((3,), (), (), newest), as_rows(lists), seed)
    windows = [items_of(examples[index]["input_ids"]) for index in range(len(examples))]
    owners = [rows for rows in lists for _ in range(-(-len(rows) // (newest + 1)))]
    assert len(windows) == len(owners)
    for window, owner in zip(windows, owners, strict=True):
        assert 2 <= len(window) <= newest + 1
        assert any(owner[at : at + len(window)] == window for at in range(len(owner)))
        assert len(owner) > newest + 1 or window == owner


def test_over_many_epochs_windows_reach_every_item_of_a_long_sequence_as_a_target() -> None:
    sequence = np.arange(30, dtype=np.int32)
    examples = WindowExamples(encoder((), (7,), (7,), 4), [sequence], seed=1)
    seen: set[int] = set()
    for epoch in range(40):
        examples.set_epoch(epoch)
        for index in range(len(examples)):
            seen |= {label - 100 for label in examples[index]["labels"] if 100 <= label < 200}
    assert seen == set(range(1, 30))


def test_the_newest_item_is_a_target_about_as_often_as_any_other() -> None:
    sequence = np.arange(30, dtype=np.int32)
    examples = WindowExamples(encoder((3,), (), (), 9), [sequence], seed=1)
    counts = np.zeros(30)
    for epoch in range(300):
        examples.set_epoch(epoch)
        for index in range(len(examples)):
            for label in examples[index]["labels"]:
                if 100 <= label < 200:
                    counts[label - 100] += 1
    assert counts.min() > 0.4 * counts.mean()


def test_items_of_one_time_come_in_another_order_every_epoch_and_no_others_do() -> None:
    sequence, times = np.arange(8, dtype=np.int32), np.array([1, 1, 1, 1, 2, 3, 3, 4])
    examples = WindowExamples(encoder((3,), (), (), 9), [sequence], seed=1, times=[times])
    orders = set()
    for epoch in range(20):
        examples.set_epoch(epoch)
        order = items_of(examples[0]["input_ids"])
        assert times[order].tolist() == times.tolist()
        orders.add(tuple(order))
    assert len(orders) > 10


def test_hidden_items_are_whole_items_of_the_input_and_labels_stay() -> None:
    plain = WindowExamples(encoder((3,), (), (), 9), [np.arange(10, dtype=np.int32)] * 30, seed=1)
    tokens = np.arange(100, 300)
    masked = MaskedExamples(plain, tokens, LEVELS, share=0.3, mask_id=2, seed=5)
    hidden = 0
    for index in range(len(masked)):
        before, after = plain[index], masked[index]
        assert after["labels"] == before["labels"] and len(after["input_ids"]) == len(before["input_ids"])
        pairs = list(zip(before["input_ids"][1:], after["input_ids"][1:], strict=True))
        for at in range(0, len(pairs), LEVELS):
            item = pairs[at : at + LEVELS]
            whole = all(new == 2 for _, new in item)
            assert whole or all(old == new for old, new in item)
            hidden += whole
    assert 0.2 < hidden / 300 < 0.4


def test_windows_follow_from_seed_and_epoch_and_nothing_else() -> None:
    sequence = np.arange(40, dtype=np.int32)

    def windows(seed: int, epoch: int) -> list[list[int]]:
        examples = WindowExamples(encoder((), (), (), 3), [sequence] * 5, seed)
        examples.set_epoch(epoch)
        torch.rand(1)  # the global generator has no say
        return [examples[index]["input_ids"] for index in reversed(range(len(examples)))]

    assert windows(1, 2) == windows(1, 2)
    assert windows(1, 2) != windows(1, 3)
    assert windows(1, 2) != windows(2, 2)


@given(sequences, pieces, pieces, pieces, st.integers(1, 6), st.sampled_from(["seq2seq", "causal"]))
def test_an_example_of_a_last_item_is_the_encoded_history_and_the_item(
    lists: list[list[int]],
    prefix: tuple[int, ...],
    between: tuple[int, ...],
    suffix: tuple[int, ...],
    newest: int,
    architecture: Architecture,
) -> None:
    items = encoder(prefix, between, suffix, newest)
    examples = LastItemExamples(items, architecture, as_rows(lists), [1] * len(lists))
    expected = [(rows[:place], rows[place]) for rows in lists for place in range(1, len(rows))]
    assert len(examples) == len(expected)
    for index, (history, item) in enumerate(expected):
        prompt, target = items.encode(history), items.target(item)
        if architecture == "seq2seq":
            assert examples[index] == {"input_ids": prompt, "labels": target}
        else:
            assert examples[index] == {"input_ids": prompt + target, "labels": [IGNORE] * len(prompt) + target}


def test_only_positions_from_the_first_target_on_are_asked() -> None:
    examples = LastItemExamples(encoder((), (), (), 9), "seq2seq", as_rows([[1, 2, 3, 4], [5, 6]]), first_target=[3, 0])
    assert [items_of(examples[index]["labels"]) for index in range(len(examples))] == [[4], [6]]
    assert items_of(examples[0]["input_ids"]) == [1, 2, 3]


def test_the_collator_pads_inputs_under_a_mask_and_labels_with_what_the_loss_ignores() -> None:
    batch = Collator()([{"input_ids": [5, 6, 7], "labels": [6]}, {"input_ids": [8], "labels": [0, 9]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    # a label 0 that is meant is not taken for padding
    assert batch["labels"].tolist() == [[6, IGNORE], [0, 9]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@pytest.mark.parametrize("newest", [1, 2])
def test_no_window_is_without_a_loss(newest: int) -> None:
    """A batch of windows of one item each would have a loss of NaN where the prompt has a suffix."""
    examples = WindowExamples(encoder((), (7,), (7,), newest), [np.arange(20, dtype=np.int32)] * 9, seed=1)
    assert all(max(examples[index]["labels"]) != IGNORE for index in range(len(examples)))
