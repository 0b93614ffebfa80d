"""What is built for a whole batch is, example by example, what the encoder that serves gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.history import IGNORE, HistoryEncoder, Prompt
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import ModelInputs, TokenLevels
from genrec.models import Architecture
from training.batches import Batch, BatchEncoder, Collator, Example
from training.examples import LastItemExamples, MaskedExamples, WindowExamples, shares

ITEMS = 40
pieces = st.lists(st.integers(1, 9), max_size=3).map(tuple)


@st.composite
def encoders(draw: st.DrawFn, *, windows: bool = False) -> HistoryEncoder:
    separator = draw(pieces)
    prompt = Prompt(
        prefix_ids=draw(pieces),
        item_separator_ids=separator,
        suffix_ids=separator if windows else draw(pieces),
        max_history_items=draw(st.integers(1, 6)),
    )
    levels = draw(st.integers(1, 4))
    paths = np.arange(ITEMS)[:, None] + 100 * np.arange(1, levels + 1)
    return HistoryEncoder(prompt, paths.astype(np.int32))


histories = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=2, max_size=15), min_size=1, max_size=6)


def as_rows(lists: list[list[int]]) -> list[np.ndarray]:
    return [np.array(rows, dtype=np.int32) for rows in lists]


def matrix(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Side by side; what is beyond a list is any row."""
    counts = np.array([len(rows) for rows in lists])
    return np.array([rows + [7] * (counts.max() - len(rows)) for rows in lists], dtype=np.int32), counts


def naive_batch(examples: list[Example]) -> dict[str, torch.Tensor]:
    """As one would write it: pad lists, then stack."""
    width = max(len(example["input_ids"]) for example in examples)
    wide = max(len(example["labels"]) for example in examples)
    pad = lambda ids, size, fill: [*ids, *[fill] * (size - len(ids))]  # noqa: E731
    return {
        "input_ids": torch.tensor([pad(example["input_ids"], width, 0) for example in examples]),
        "attention_mask": torch.tensor([pad([1] * len(example["input_ids"]), width, 0) for example in examples]),
        "labels": torch.tensor([pad(example["labels"], wide, IGNORE) for example in examples]),
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@given(encoders(), histories)
def test_prompts_and_continuations_of_a_batch_are_those_of_the_encoder(
    encoder: HistoryEncoder, lists: list[list[int]]
) -> None:
    newest = encoder.prompt.max_history_items
    asked = [(rows[-newest - 1 : -1], rows[-1]) for rows in lists]
    rows, counts = matrix([history for history, _ in asked])
    ids, lengths = BatchEncoder(encoder).encode(rows, counts)
    expected = [encoder.encode(history) for history, _ in asked]
    assert [line[:length].tolist() for line, length in zip(ids, lengths, strict=True)] == expected
    assert ids.shape[1] == max(map(len, expected)) and not ids[np.arange(ids.shape[1]) >= lengths[:, None]].any()
    batch = BatchEncoder(encoder).continuation(rows, counts, np.array([item for _, item in asked], dtype=np.int32))
    for index, (history, item) in enumerate(asked):
        input_ids, labels = encoder.continuation(history, item)
        assert batch.example(index) == {"input_ids": input_ids, "labels": labels}


@given(encoders(windows=True), histories)
def test_windows_of_a_batch_are_those_of_the_encoder(encoder: HistoryEncoder, lists: list[list[int]]) -> None:
    cut = [rows[: encoder.prompt.max_history_items + 1] for rows in lists]
    batch = BatchEncoder(encoder).window(*matrix(cut))
    for index, rows in enumerate(cut):
        input_ids, labels = encoder.window(rows)
        assert batch.example(index) == {"input_ids": input_ids, "labels": labels}


@given(encoders(), histories, st.sampled_from(["seq2seq", "causal"]), st.randoms(use_true_random=False))
def test_batches_of_last_items_are_those_of_a_plain_construction(
    encoder: HistoryEncoder, lists: list[list[int]], architecture: Architecture, random: object
) -> None:
    examples = LastItemExamples(encoder, architecture, as_rows(lists), [1] * len(lists))
    plain: list[Example] = []
    for rows in lists:
        for place in range(1, len(rows)):
            prompt, target = encoder.encode(rows[:place]), encoder.target(rows[place])
            answered = {"input_ids": prompt + target, "labels": [IGNORE] * len(prompt) + target}
            plain.append({"input_ids": prompt, "labels": target} if architecture == "seq2seq" else answered)
    order = list(range(len(plain)))
    random.shuffle(order)  # type: ignore[attr-defined]
    chosen = order[:5]
    assert len(examples) == len(plain)
    assert examples.lengths().tolist() == [len(example["input_ids"]) for example in plain]
    assert same(Collator()(examples.__getitems__(chosen)), naive_batch([plain[index] for index in chosen]))
    assert examples[chosen[0]] == plain[chosen[0]]


@given(encoders(windows=True), histories, st.integers(0, 9), st.integers(0, 3), st.booleans())
@settings(max_examples=60)
def test_batches_of_windows_are_those_of_a_plain_construction(
    encoder: HistoryEncoder, lists: list[list[int]], seed: int, epoch: int, ties: bool
) -> None:
    """As it was once written, example by example."""
    times = [np.sort(np.arange(len(rows)) // 3) for rows in lists] if ties else None
    examples = WindowExamples(encoder, as_rows(lists), seed, times)
    examples.set_epoch(epoch)
    size = encoder.prompt.max_history_items + 1
    users = [user for user, rows in enumerate(lists) for _ in range(-(-len(rows) // size))]
    rng = np.random.default_rng((seed, epoch))
    places = rng.random(len(users))
    ordered = as_rows(lists)
    if times is not None:
        ordered = [rows[np.lexsort((rng.random(len(rows)), when))] for rows, when in zip(ordered, times, strict=True)]
    plain: list[Example] = []
    for user, place in zip(users, places, strict=True):
        rows, spare = ordered[user], len(ordered[user]) - size
        beyond = min(size // 2, size - 2) if spare > 0 else 0
        start = min(int(place * (max(spare, 0) + 2 * beyond + 1)) - beyond, max(spare, 0))
        input_ids, labels = encoder.window(rows[max(start, 0) : start + size].tolist())
        plain.append({"input_ids": input_ids, "labels": labels})
    assert len(examples) == len(plain)
    assert examples.lengths().tolist() == [len(example["input_ids"]) for example in plain]
    assert same(Collator()(examples.__getitems__(range(len(plain)))), naive_batch(plain))


@given(encoders(windows=True), histories, st.floats(0, 0.9), st.integers(0, 99), st.integers(0, 3))
def test_what_is_hidden_depends_on_the_example_and_not_on_its_batch(
    encoder: HistoryEncoder, lists: list[list[int]], share: float, seed: int, epoch: int
) -> None:
    plain = WindowExamples(encoder, as_rows(lists), seed)
    masked = MaskedExamples(plain, np.unique(encoder.paths).astype(np.int64), encoder.paths.shape[1], share, 9, seed)
    masked.set_epoch(epoch)
    batch = masked.batch(np.arange(len(masked)))
    assert [batch.example(index) for index in range(len(masked))] == [masked[index] for index in range(len(masked))]
    assert masked.lengths().tolist() == plain.lengths().tolist()
    before = plain.batch(np.arange(len(plain)))
    assert np.array_equal(batch.labels, before.labels)
    if share == 0:
        assert np.array_equal(batch.input_ids, before.input_ids)


def test_hidden_shares_are_spread_evenly_and_differ_by_epoch() -> None:
    found = shares(1, 0, np.arange(5_000)[:, None], np.arange(20)[None, :])
    assert found.min() >= 0 and found.max() < 1
    assert np.histogram(found, 10, (0, 1))[0] == pytest.approx(10_000, rel=0.05)
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.05
    assert abs(np.corrcoef(found[:-1, 0], found[1:, 0])[0, 1]) < 0.05
    assert not np.isclose(found, shares(1, 1, np.arange(5_000)[:, None], np.arange(20)[None, :])).mean() > 0.01


@pytest.mark.parametrize(("multiple", "width"), [(1, 5), (4, 8), (16, 16)])
def test_padding_goes_up_to_a_multiple_and_labels_of_a_decoder_only_model_with_it(multiple: int, width: int) -> None:
    causal = [{"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORE, 6, 7, 8, 9]}, {"input_ids": [1], "labels": [1]}]
    batch = Collator(pad_to_multiple_of=multiple)(causal)
    assert {tensor.shape for tensor in batch.values()} == {(2, width)}
    assert batch["attention_mask"].sum(1).tolist() == [5, 1]
    assert (batch["labels"] != IGNORE).sum(1).tolist() == [4, 1]
    answer = Collator(pad_to_multiple_of=multiple)([{"input_ids": [5, 6, 7, 8, 9], "labels": [1, 2]}])
    assert answer["input_ids"].shape == (1, width) and answer["labels"].shape == (1, 2)


def test_the_collator_adds_what_the_family_asks_for() -> None:
    levels = TokenLevels(ItemTokens(((10, 11), (20, 21))))
    inputs = ModelInputs(("level",), lambda ids, mask, levels: {"level": levels.of(ids) * mask}, levels)
    batch = Collator(inputs, pad_to_multiple_of=4)([{"input_ids": [3, 10, 21], "labels": [10]}])
    assert batch["level"].tolist() == [[-1, 0, 1, 0]]
    assert list(batch) == ["input_ids", "attention_mask", "level", "labels"]


def test_single_examples_side_by_side_are_a_batch() -> None:
    batch = Batch.of([{"input_ids": [5, 6, 7], "labels": [6]}, {"input_ids": [8], "labels": [0, 9]}])
    assert len(batch) == 2
    assert batch.example(1) == {"input_ids": [8], "labels": [0, 9]}
