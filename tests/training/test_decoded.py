from pathlib import Path

import numpy as np
import pytest

from genrec.history import IGNORE
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training.decoded import LEGEND, Decoder, show_examples
from training.vocabulary import bare_tokenizer


@pytest.fixture
def decoder() -> Decoder:
    tokenizer = bare_tokenizer()
    tokenizer.add_tokens(["<a_0>", "<a_1>", "<b_0>", "<b_1>", "ask"])
    titles = {(4, 6): "Alien", (5, 7): "Brazil"}
    return Decoder(tokenizer, titles, frozenset({4, 5, 6, 7}), num_levels=2)


def test_items_stand_on_a_line_each_with_their_title_and_what_is_learnt(decoder: Decoder) -> None:
    ids, labels = [3, 8, 4, 6, 5, 7, 1], [IGNORE, IGNORE, IGNORE, IGNORE, 5, 7, IGNORE]
    assert [line.split() for line in decoder.lines({"input_ids": ids, "labels": labels})] == [
        ["··", "<s>", "ask"],
        ["··", "<a_0>", "<b_0>", "Alien"],
        ["●●", "<a_1>", "<b_1>", "Brazil"],
        ["·", "</s>"],
    ]


def test_what_is_hidden_in_the_input_is_told_by_its_labels(decoder: Decoder) -> None:
    lines = list(decoder.lines({"input_ids": [2, 2, 5, 7], "labels": [4, 6, 5, 7]}))
    assert lines[0].split(maxsplit=3) == ["●●", "<unk>", "<unk>", "hidden in the input: Alien"]


def test_the_answer_of_an_encoder_decoder_comes_after_its_input(decoder: Decoder) -> None:
    lines = [line.strip() for line in decoder.lines({"input_ids": [4, 6, 1], "labels": [5, 7]})]
    assert [line[:2] for line in lines] == ["··", "· ", "an", "●●"]
    assert lines[-1].endswith("Brazil")


def test_examples_of_a_recipe_are_shown_with_titles_and_trained_on_nothing(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "work", until="vocabulary")
    lines = show_examples(run.recipe(), run.work, 3, RememberingProgress())
    heads = [line for line in lines if line.startswith("pretrain, example ")]
    examples = finished.corpus().training_examples(run.recipe().pretrain)
    assert lines[0] == LEGEND and len(heads) == 3
    assert all(line.endswith(f"of {len(examples)}") for line in heads)
    learnt = sum(line.count("●") for line in lines[1:])
    chosen = np.random.default_rng(1).permutation(len(examples))[:3]
    assert learnt == sum(label != IGNORE for index in chosen for label in examples[int(index)]["labels"])
    assert sum(" number " in line for line in lines) >= 6
    assert not (run.work / "pretrain").exists()
