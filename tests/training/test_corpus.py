from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.engine import Beam, Query
from genrec.decoding.generate import GenerateEngine
from genrec.decoding.scoring import path_log_probs
from genrec.errors import DataError, RecipeError
from genrec.history import HistoryEncoder, Prompt
from genrec.item_tokens import ItemTokens
from genrec.models import Architecture
from tests.training.runs import Run
from training import corpus as corpus_module
from training.corpus import Corpus, sample
from training.lora import load_adapter
from training.recipe_model import Fitting
from training.sequences import Sequences
from training.vocabulary import load_trainable

# Item r is (r // 10, r % 10): 0 … 59 are in training histories, 60 … 79 are validation items, 80 … 99 test items.
TOKENS = ItemTokens((tuple(range(10, 20)), tuple(range(20, 30))))
PATHS = TOKENS.paths(np.stack(np.unravel_index(np.arange(100), (10, 10)), axis=1).astype(np.int32))


def sequences_of(users: list[tuple[list[int], list[int], list[int]]]) -> Sequences:
    ends = np.cumsum([0, *(sum(map(len, parts)) for parts in users)])
    return Sequences(
        item_ids=[f"i{row:02}" for row in range(100)],
        user_ids=[f"u{number}" for number in range(len(users))],
        items=np.array([row for parts in users for part in parts for row in part], dtype=np.int32),
        times=np.arange(int(ends[-1])),
        starts=ends,
        validation_starts=ends[:-1] + [len(training) for training, _, _ in users],
        test_starts=ends[1:] - [len(test) for _, _, test in users],
    )


def corpus_of(
    users: list[tuple[list[int], list[int], list[int]]], architecture: Architecture = "causal", newest: int = 4
) -> Corpus:
    encoder = HistoryEncoder(Prompt(prefix_ids=(1,), max_history_items=newest), PATHS)
    no_text: Any = None
    return Corpus(sequences_of(users), TOKENS, encoder, architecture, (), mask_id=None, seed=3, text=no_text)


def rows_of(ids: list[int]) -> list[int]:
    tokens = [token for token in ids if token >= 10]
    return [(first - 10) * 10 + second - 20 for first, second in zip(tokens[::2], tokens[1::2], strict=True)]


histories = st.lists(
    st.tuples(
        st.lists(st.integers(0, 59), min_size=1, max_size=14),
        st.lists(st.integers(60, 79), max_size=2),
        st.lists(st.integers(80, 99), max_size=2),
    ),
    min_size=1,
    max_size=5,
).filter(lambda users: any(len(training) > 1 for training, _, _ in users))


@given(histories, st.sampled_from([("seq2seq", "last"), ("causal", "last"), ("causal", "window")]), st.integers(0, 3))
def test_no_item_that_is_held_out_is_ever_in_a_training_example(
    users: list[tuple[list[int], list[int], list[int]]], kind: tuple[Architecture, str], epoch: int
) -> None:
    architecture, examples = kind
    training = corpus_of(users, architecture).training_examples(Fitting(examples=examples))
    training.set_epoch(epoch)
    known = [rows for rows, _, _ in users]
    for index in range(len(training)):
        example = training[index]
        shown = rows_of(example["input_ids"]) + (rows_of(example["labels"]) if architecture == "seq2seq" else [])
        assert max(shown) < 60
        # and it is a piece of one user's training history, in order
        assert any(rows[at : at + len(shown)] == shown for rows in known for at in range(len(rows)))


@given(histories, st.sampled_from([("seq2seq", "last"), ("causal", "window")]), st.integers(0, 3))
def test_nor_is_it_when_ties_are_reordered_and_items_hidden(
    users: list[tuple[list[int], list[int], list[int]]], kind: tuple[Architecture, str], epoch: int
) -> None:
    architecture, examples = kind
    made = corpus_of(users, architecture)
    tied = replace(made.sequences, times=made.sequences.times // 100)  # all of one time, what is held out too
    settings = Fitting(examples=examples, reorder_ties=True, mask_share=0.4)
    training = replace(made, sequences=tied, mask_id=2).training_examples(settings)
    training.set_epoch(epoch)
    for index in range(len(training)):
        example = training[index]
        assert max(rows_of(example["input_ids"]) + rows_of(example["labels"]), default=0) < 60


def test_to_hide_items_takes_a_token_that_hides_them() -> None:
    with pytest.raises(RecipeError, match="mask_share"):
        corpus_of([([1, 2], [60], [80])]).training_examples(Fitting(mask_share=0.2))


@given(histories)
def test_validation_asks_for_validation_items_after_training_items_alone(
    users: list[tuple[list[int], list[int], list[int]]],
) -> None:
    made = corpus_of(users, "seq2seq", newest=20)
    expected = [
        (training + validation[:place], target)
        for training, validation, _ in users
        for place, target in enumerate(validation)
    ]
    if not expected:
        with pytest.raises(DataError, match="no user has a validation item"):
            made.validation_examples(9)
        return
    examples = made.validation_examples(1_000)
    found = [
        (rows_of(examples[index]["input_ids"]), *rows_of(examples[index]["labels"])) for index in range(len(examples))
    ]
    assert found == expected


def test_training_examples_of_last_items_slide_over_the_whole_training_part() -> None:
    examples = corpus_of([([1, 2, 3], [60], [80]), ([4], [61], [81])], "seq2seq").training_examples(Fitting())
    found = [
        (rows_of(examples[index]["input_ids"]), *rows_of(examples[index]["labels"])) for index in range(len(examples))
    ]
    assert found == [([1], 2), ([1, 2], 3)]


def test_histories_of_one_item_teach_nothing_and_say_so() -> None:
    with pytest.raises(DataError, match="no user has two training interactions"):
        corpus_of([([1], [60], [80]), ([2], [], [])]).training_examples(Fitting())


def test_the_validation_users_are_drawn_by_the_seed_and_stay_in_order() -> None:
    cases = corpus_of([([1, 2], [60], [80])] * 50).validation_cases()
    drawn = sample(cases, 10, seed=1)
    assert [case.user for case in drawn] == sorted({case.user for case in drawn})
    assert len(drawn) == 10
    assert [case.user for case in sample(cases, 10, seed=1)] == [case.user for case in drawn]
    assert [case.user for case in sample(cases, 10, seed=2)] != [case.user for case in drawn]
    assert sample(cases, None, seed=1) == sample(cases, 50, seed=1) == cases


def test_recall_is_what_scoring_every_item_gives(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = finished.corpus()
    model = load_trainable(finished.work / "merge" / "model", corpus.architecture)
    num_items = len(corpus.encoder.paths)
    monkeypatch.setattr(corpus_module, "RECALL_BEAMS", num_items)  # a beam that prunes nothing
    cases = corpus.validation_cases(12)
    hits = 0
    model.eval()
    for case in cases:
        prompt = corpus.encoder.encode(case.history.tolist())
        paths = [corpus.encoder.target(row) for row in range(num_items)]
        scores = path_log_probs(model, [prompt] * num_items, paths, corpus.decoder_prefix_ids).sum(1)
        scores[case.history] = -torch.inf
        hits += int(case.target in scores.topk(corpus_module.RECALL_AT).indices.tolist())
    assert 0 < hits < len(cases)
    model.train()
    assert corpus.recall(12)(model) == hits / len(cases)
    assert model.training


def test_the_decoder_starts_with_what_the_config_of_the_base_says(finished: Run) -> None:
    assert finished.corpus().decoder_prefix_ids == ((0,) if finished.architecture == "seq2seq" else ())


def test_a_model_with_an_adapter_on_it_is_searched_by_beams_and_gives_what_generate_gives(finished: Run) -> None:
    corpus = finished.corpus()
    base = load_trainable(finished.work / "pretrain" / "model", corpus.architecture)
    live = load_adapter(base, finished.work / "finetune" / "adapter")
    engine = corpus._engine(live)
    assert engine.name == ("beam" if corpus.architecture == "causal" else "generate")
    everything = ItemMask.everything(len(corpus.encoder.paths))
    queries = [Query(corpus.encoder.encode(rows), AllowedItems.all_but(rows, everything)) for rows in ([3], [5, 9, 2])]
    oracle = GenerateEngine(live, corpus._trie, corpus.decoder_prefix_ids, length_penalty=1.0)
    for ours, theirs in zip(engine.search(queries, 8), oracle.search(queries, 8), strict=True):
        assert isinstance(ours, Beam) and isinstance(theirs, Beam)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
