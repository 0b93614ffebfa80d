from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec.history import IGNORE
from genrec.models import Architecture
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from tests.training.words import TITLES, open_cinema
from training.base_model import bare_tokenizer
from training.decoded import LEGEND, Decoder, show_examples


@pytest.fixture
def decoder() -> Decoder:
    tokenizer = bare_tokenizer()
    tokenizer.add_tokens(["<a_0>", "<a_1>", "<b_0>", "<b_1>", "ask"])
    titles = {(4, 6): "Alien", (5, 7): "Brazil"}
    return Decoder(tokenizer, titles, frozenset({4, 5, 6, 7}), num_levels=2, architecture="causal")


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
    asked = replace(decoder, architecture="seq2seq")
    lines = [line.strip() for line in asked.lines({"input_ids": [4, 6, 1], "labels": [5, 7]})]
    assert [line[:2] for line in lines] == ["··", "· ", "an", "●●"]
    assert lines[-1].endswith("Brazil")
    as_long = [line.strip() for line in asked.lines({"input_ids": [4, 6], "labels": [5, 7]})]
    assert [line[:2] for line in as_long] == ["··", "an", "●●"]


def test_text_that_is_learnt_stands_on_a_line_of_its_own(decoder: Decoder) -> None:
    lines = list(decoder.lines({"input_ids": [4, 6, 8, 2, 1], "labels": [IGNORE, IGNORE, IGNORE, 2, 1]}))
    assert [line.split()[0] for line in lines] == ["··", "·", "●●"]
    assert [line.split()[1:] for line in lines] == [["<a_0>", "<b_0>", "Alien"], ["ask"], ["<unk>", "</s>"]]


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


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_of_several_tasks_one_example_each_is_shown_first(architecture: Architecture, tmp_path: Path) -> None:
    cinema = open_cinema(architecture, tmp_path)
    made = cinema.recipe({"title_to_item": 0.5, "item_to_title": 0.5, "titles_to_item": 0.5})
    lines = show_examples(made, tmp_path / "shown", 4, RememberingProgress())
    heads = [line for line in lines if line.startswith("finetune, example ")]
    assert [head.split(": ")[1] for head in heads] == ["next_item", "title_to_item", "item_to_title", "titles_to_item"]
    [at] = [place for place, line in enumerate(lines) if line.endswith(": item_to_title")]
    shown = [line.split() for line in lines[at + 1 : lines.index(heads[3]) - 1]]
    answer = shown[-1]
    words = cinema.tokenizer()
    said = words.decode(words.convert_tokens_to_ids(answer[1:]), skip_special_tokens=True).strip()
    assert set(answer[0]) == {"●"} and said in TITLES and answer[-1] == words.eos_token
    assert not [line for line in shown[:-1] if "●" in line[0]]
    assert [" ".join(line) for line in shown if said in " ".join(line)]  # the item bears its title


def test_fewer_examples_than_tasks_are_of_the_first_tasks(tmp_path: Path) -> None:
    made = open_cinema("causal", tmp_path).recipe({"title_to_item": 0.5, "titles_to_item": 0.5})
    lines = show_examples(made, tmp_path / "shown", 2, RememberingProgress())
    assert [line.split(": ")[1] for line in lines if line.startswith("finetune, ")] == ["next_item", "title_to_item"]
