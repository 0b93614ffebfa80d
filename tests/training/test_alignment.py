"""Titles and items: what examples hold, token by token, and that a model learns what they say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.engine import Query
from genrec.errors import DataError, RecipeError
from genrec.history import IGNORE
from genrec.models import load_model, load_tokenizer
from tests.training.bench import recipe, run_stage
from tests.training.words import TITLES, UNTITLED, Cinema, open_cinema
from training import alignment, corpus, merge
from training.alignment import check_tasks
from training.batches import Batch, Collator
from training.examples import Example
from training.fit_report import read_curve
from training.mixed_examples import MixedExamples
from training.prune import prune
from training.recipe_model import Fitting
from training.recipe_tasks import PLACEHOLDERS, AlignmentTask, Tasks
from training.vocabulary import load_trainable

ALL: dict[str, Any] = {"next_item": 1.0, "title_to_item": 0.5, "item_to_title": 0.25, "titles_to_item": 1.5}


@pytest.fixture(scope="module", params=["causal", "seq2seq"])
def cinema(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cinema:
    """Read it, do not change it."""
    return open_cinema(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Cinema:
    return open_cinema("causal", tmp_path_factory.mktemp("one"))


def mixture(cinema: Cinema, **tasks: Any) -> MixedExamples:
    made = cinema.corpus().training_examples(Fitting(tasks=Tasks(**tasks)))
    assert isinstance(made, MixedExamples)
    return made


class Asked(NamedTuple):
    """What an example should read and answer."""

    prompt: list[int]
    answer: list[int]


def asked(example: Example, cinema: Cinema) -> Asked:
    """What it reads and answers; refuses a label anywhere but on the whole answer, at the end."""
    ids, labels = example["input_ids"], example["labels"]
    if cinema.architecture == "seq2seq":
        assert IGNORE not in labels
        return Asked(ids, labels)
    begin = next(place for place, label in enumerate(labels) if label != IGNORE)
    assert labels == [IGNORE] * begin + ids[begin:]
    return Asked(ids[:begin], ids[begin:])


def expected(cinema: Cinema, task: AlignmentTask, newest: int = 10) -> Iterator[Asked]:
    """The examples of a task, one token list after another."""
    loaded, words = cinema.corpus(), cinema.tokenizer()
    titles = [*TITLES, None]
    prompt = loaded.encoder.prompt

    def tokens(text: str) -> list[int]:
        ids: list[int] = words(text, add_special_tokens=False).input_ids
        return ids

    def sentence(opening: str, given: list[int], middle: str) -> list[int]:
        return [*prompt.prefix_ids, *tokens(opening), *given, *tokens(middle), *prompt.suffix_ids]

    if task == "titles_to_item":
        for rows in loaded.sequences.training_sequences():
            for place in range(1, len(rows)):
                named = [tokens(f" {titles[row]}") for row in rows[:place] if titles[row]][-newest:]
                given = [token for name in named for token in [*tokens(";"), *name]][len(tokens(";")) :]
                if named:
                    yield Asked(sentence("After", given, " comes"), loaded.encoder.target(int(rows[place])))
        return
    for row, title in enumerate(titles):
        if title is not None:
            name, item = tokens(f" {title}"), loaded.encoder.target(row)
            if task == "title_to_item":
                yield Asked(sentence("The item called", name, " is"), item)
            else:
                yield Asked(sentence("The item", item, " is called"), [*name, words.eos_token_id])


@pytest.mark.parametrize("task", PLACEHOLDERS)
@pytest.mark.parametrize("newest", [1, 10])
def test_every_example_reads_the_sentence_and_has_a_loss_on_the_whole_answer_and_nothing_else(
    cinema: Cinema, task: AlignmentTask, newest: int
) -> None:
    [part] = mixture(cinema, next_item=0, max_titles=newest, **{task: 1}).parts
    assert part.task == task
    found = [asked(part.examples[index], cinema) for index in range(len(part.examples))]
    assert found == list(expected(cinema, task, newest))


def test_a_history_without_a_title_and_an_item_without_one_are_left_out_and_counted(cinema: Cinema) -> None:
    loaded = cinema.corpus()
    untitled = loaded.sequences.item_ids.index(UNTITLED)
    mixed = mixture(cinema, **ALL)
    of_titles = [rows for rows in loaded.sequences.training_sequences() if len(rows) > 1]
    nameless = sum(bool((rows[:place] == untitled).all()) for rows in of_titles for place in range(1, len(rows)))
    assert nameless > 0
    assert [part.left_out for part in mixed.parts] == [0, 1, 1, nameless]
    assert str(mixed.parts[1]).endswith("title_to_item (of 20; 1 more without a title)")


def test_an_epoch_has_as_many_examples_of_a_task_as_its_weight_says(cinema: Cinema) -> None:
    following = len(cinema.corpus().training_examples(Fitting()))
    mixed = mixture(cinema, **ALL)
    counted = {part.task: len(places) for part, places in zip(mixed.parts, mixed.places(), strict=True)}
    assert counted == {task: round(weight * following) for task, weight in ALL.items()}
    assert [len(places) for places in mixture(cinema, title_to_item=1e-6).places()] == [following, 1]
    assert [part.task for part in mixture(cinema, next_item=0, item_to_title=1).parts] == ["item_to_title"]


def test_a_batch_of_all_tasks_is_its_examples_side_by_side_and_no_longer_than_it_says(cinema: Cinema) -> None:
    mixed = mixture(cinema, **ALL)
    indices = np.random.default_rng(0).permutation(len(mixed))[:64]
    alone = [mixed[int(index)] for index in indices]
    batch, side_by_side = mixed.batch(indices), Batch.of(alone)
    for name in ("input_ids", "lengths", "labels", "label_lengths"):
        assert np.array_equal(getattr(batch, name), getattr(side_by_side, name)), name
    assert mixed.lengths()[indices].tolist() == [len(example["input_ids"]) for example in alone]
    padded = Collator(pad_to_multiple_of=16)(batch)
    assert padded["input_ids"].shape[1] % 16 == 0
    assert int((padded["labels"] != IGNORE).sum()) == sum(len(asked(one, cinema).answer) for one in alone)


def test_masks_hide_items_of_histories_and_never_of_a_sentence(causal: Cinema) -> None:
    made = causal.corpus().training_examples(Fitting(mask_share=0.9, tasks=Tasks(**ALL)))
    assert isinstance(made, MixedExamples)
    unknown = causal.tokenizer().unk_token_id
    hidden = [sum(unknown in made[int(place)]["input_ids"] for place in places) for places in made.places()]
    assert hidden[0] > 0 and not any(hidden[1:])


def overfit(cinema: Cinema, task: str) -> PreTrainedModel:
    """The base model after it has read every example of one task until it knows them by heart."""
    torch.manual_seed(1)
    model = load_trainable(cinema.work / "pretrain" / "model", cinema.architecture)
    [part] = mixture(cinema, next_item=0, **{task: 1}).parts
    batch = Collator()(part.examples.batch(np.arange(len(part.examples))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005, weight_decay=0.0)
    for _ in range(400):
        loss = model(**batch).loss
        if loss.item() < 0.01:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def items_found(cinema: Cinema, model: PreTrainedModel) -> float:
    """Of the titled items, how many come first in a constrained search for what has their title."""
    loaded = cinema.corpus()
    everything = AllowedItems.all_but([], ItemMask.everything(len(loaded.encoder.paths)))
    questions = list(expected(cinema, "title_to_item"))
    beams = loaded._engine(model).search([Query(question.prompt, everything) for question in questions], 5)
    best = [loaded.encoder.paths[loaded._order[beam.rows[0]]].tolist() for beam in beams]
    return float(np.mean([path == question.answer for path, question in zip(best, questions, strict=True)]))


@torch.inference_mode()
def titles_said(cinema: Cinema, model: PreTrainedModel) -> float:
    """Of the titled items, how many have their title said, word for word and ended, by greedy decoding."""
    words = cinema.tokenizer()
    ends = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    said = []
    for question in expected(cinema, "item_to_title"):
        ids = torch.tensor([question.prompt])
        if cinema.architecture == "seq2seq":
            out = model.generate(ids, do_sample=False, max_new_tokens=40, decoder_start_token_id=0, **ends)[0, 1:]
        else:
            mask = torch.ones_like(ids)
            out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=40, **ends)[
                0, ids.shape[1] :
            ]
        said.append(out.tolist() == question.answer and words.decode(out, skip_special_tokens=True).strip() in TITLES)
    return float(np.mean(said))


@pytest.mark.system
def test_a_model_trained_on_titles_knows_the_item_of_each_and_one_that_was_not_does_not(cinema: Cinema) -> None:
    by_title, by_item = overfit(cinema, "title_to_item"), overfit(cinema, "item_to_title")
    assert items_found(cinema, by_title) == 1.0
    assert items_found(cinema, by_item) < 0.5
    assert titles_said(cinema, by_item) == 1.0
    assert titles_said(cinema, by_title) < 0.5


def test_all_four_tasks_are_trained_by_lora_merged_and_pruned_of_their_words(causal: Cinema, tmp_path: Path) -> None:
    quick = {
        "num_train_epochs": 2, "per_device_train_batch_size": 64, "train_sampling_strategy": "group_by_length",
        "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 4, "save_steps": 4, "logging_steps": 1,
    }  # fmt: skip
    made = causal.recipe(ALL, method="lora", pad_to_multiple_of=8, recall_users=5, training_arguments=quick)
    said = causal.fit(tmp_path, made)
    [told] = [line for line in said.lines if "an epoch has" in line]
    assert told.startswith("finetune: an epoch has 92 next_item (of 92) + 46 title_to_item (of 20; 1 more without")
    curve = read_curve(tmp_path / "finetune")
    assert curve[-1].validation_loss < curve[0].validation_loss
    run_stage(merge.STAGE, made, tmp_path)  # the merged model gives the live one's logits, or it fails
    loaded = causal.corpus()
    kept = prune(loaded, tmp_path / "merge" / "model", tmp_path / "pruned")
    items = {token for level in loaded.tokens.token_ids for token in level}
    assert set(kept) == items | set(loaded.encoder.prompt.prefix_ids) | {0, 2}  # unknown, pad and end
    assert len(load_model(tmp_path / "pruned", "causal").get_input_embeddings().weight) == len(kept)
    # and what is left cannot read titles any more, which is said and not trained on
    text = alignment.ItemText(load_tokenizer(tmp_path / "pruned"), loaded.text.items, loaded.tokens)
    with pytest.raises(RecipeError, match="pruned of its text"):
        text.title_tokens(TITLES, " ", 9)


def test_a_title_needs_an_end(causal: Cinema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.ItemText, "end_id", None)
    assert len(mixture(causal, title_to_item=1))
    with pytest.raises(RecipeError, match="item_to_title needs a tokenizer with an end token"):
        mixture(causal, item_to_title=1)


def test_histories_without_any_title_teach_nothing_and_say_so(causal: Cinema, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [np.array([20, 20], dtype=np.int32)]  # the untitled one
    monkeypatch.setattr(corpus.Sequences, "training_sequences", lambda _: rows)
    with pytest.raises(DataError, match="titles_to_item has no example"):
        mixture(causal, titles_to_item=1)


TITLED = {"path": "y", "metadata": {"title": "string"}}


def aligned(prepare: dict[str, Any], **model: Any) -> Any:
    tasks = {"tasks": {"item_to_title": 0.5}}
    return recipe(
        {"interactions": {"path": "x"}, **prepare}, model=model or {"checkpoint": "somewhere"}, finetune=tasks
    )


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (aligned({"items": TITLED}, config={"model_type": "llama"}), "item tokens alone; take a model.checkpoint"),
        (aligned({}), r"needs titles from the column 'title'.*there is none. Add it to \[prepare.items.metadata\]"),
        (
            aligned({"items": {"path": "y", "metadata": {"name": "string"}}}),
            "there are name.*in finetune.tasks.title_col",
        ),
        (aligned({"items": {"path": "y", "metadata": {"title": "list"}}}), 'as a "string"; there is none'),
    ],
    ids=["no words", "no items", "another column", "a list"],
)
def test_what_can_be_known_to_have_no_words_is_refused_before_any_stage(made: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=rf"finetune\.tasks\.item_to_title.*{told}"):
        check_tasks(made, made.finetune, "finetune")


def test_what_cannot_be_known_yet_passes_and_so_do_tasks_without_titles() -> None:
    whole = aligned({"items": {"path": "y"}})
    check_tasks(whole, whole.finetune, "finetune")
    of_a_bundle = aligned({"items": TITLED}, config={"model_type": "llama"}).model_copy(update={"base": "a bundle"})
    check_tasks(of_a_bundle, of_a_bundle.finetune, "finetune")
    plain = recipe(finetune={"tasks": {"next_item": 1.0}})
    check_tasks(plain, plain.finetune, "finetune")
    check_tasks(plain, Fitting(), "finetune")
