"""What a run is said to take is what it takes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genrec.errors import RecipeError
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from tests.training.words import open_cinema
from training.dry_run import Plan, dry_run, plan
from training.vocabulary import load_trainable


@pytest.fixture
def planned(finished: Run, tmp_path: Path) -> tuple[Run, list[Plan], list[str]]:
    run, progress = finished.copy(tmp_path / "work", until="vocabulary"), RememberingProgress()
    plans = dry_run(run.recipe(), run.work, progress)
    return run, plans, progress.lines


def test_steps_and_parameters_are_those_of_the_run(finished: Run, planned: tuple[Run, list[Plan], list[str]]) -> None:
    run, plans, lines = planned
    assert [one.stage for one in plans] == ["pretrain", "finetune"]
    for one in plans:
        assert one.steps == json.loads((finished.work / one.stage / "fit.json").read_text())["steps"]
    said = "\n".join(finished.lines)
    finetune = plans[1]
    assert f"{finetune.trainable:,} of {finetune.trainable + finetune.frozen:,} parameters are trained" in said
    assert f"finetune: at most 2 epochs in batches of 120 = {finetune.steps} steps" in lines
    assert not (run.work / "pretrain").exists()  # and the stages before were skipped
    assert not [line for line in lines if "done in" in line]


def test_tokens_are_counted_one_by_one(finished: Run, planned: tuple[Run, list[Plan], list[str]]) -> None:
    run, plans, _ = planned
    examples = finished.corpus().training_examples(run.recipe().finetune)
    every = [examples[index] for index in range(len(examples))]
    assert plans[1].tokens == sum(len(example["input_ids"]) for example in every)
    assert plans[1].labels == sum(label >= 0 for example in every for label in example["labels"])
    assert plans[1].longest == max(len(example["input_ids"]) for example in every)


def test_the_examples_of_each_task_are_counted(tmp_path: Path) -> None:
    cinema = open_cinema("causal", tmp_path)
    settings = cinema.recipe({"title_to_item": 0.5, "titles_to_item": 0.25}).finetune
    one = plan("finetune", load_trainable(cinema.work / "vocabulary" / "model", "causal"), cinema.corpus(), settings)
    assert one.examples == 92 + 46 + 23
    assert one.tasks[0] == "92 next_item (of 92)"
    assert f"finetune: an epoch has {' + '.join(one.tasks)} examples" in list(one.lines())
    examples = cinema.corpus().training_examples(settings)
    every = [examples[index] for index in range(len(examples))]
    assert one.tokens == sum(len(example["input_ids"]) for example in every)


def test_the_memory_that_is_kept_grows_with_the_batch_and_shrinks_with_checkpointing(finished: Run) -> None:
    corpus, settings = finished.corpus(), finished.recipe().finetune
    model = load_trainable(finished.work / "pretrain" / "model", finished.architecture)
    one = plan("finetune", model, corpus, settings)
    assert one.activation_bytes == 120 * one.example_bytes
    checkpointed = settings.training_arguments | {"gradient_checkpointing": True}
    less = plan("finetune", model, corpus, settings.model_copy(update={"training_arguments": checkpointed}))
    assert 0 < less.example_bytes < one.example_bytes
    weights = sum(weight.numel() for weight in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    model(**{name: torch.ones(1, 4, dtype=torch.long) for name in ("input_ids", "labels")}).loss.backward()
    optimizer.step()
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    gradients = sum(weight.grad.nbytes for weight in model.parameters())
    assert one.state_bytes == 4 * weights + gradients + moments


def test_a_recipe_that_could_not_be_followed_is_refused_before_the_cheap_stages(finished: Run, tmp_path: Path) -> None:
    recipe = finished.recipe("finetune.training_arguments.learning_rat=1")
    with pytest.raises(RecipeError, match="learning_rat"):
        dry_run(recipe, tmp_path / "work", RememberingProgress())
    assert not (tmp_path / "work").exists()


def test_sizes_are_said_in_units_for_people() -> None:
    shown = Plan("pretrain", 10, 100, 90, 20, 2.0, 4, 6, trainable=10**9, frozen=0, example_bytes=2**20, piece=4)
    said = list(shown.lines())[-1]
    assert said.startswith("pretrain: memory 14.91 GB a process = weights 3.73 GB + gradients 3.73 GB + Adam 7.45 GB")
    assert said.endswith("activations 4.0 MB (4 × 1.0 MB, measured on one example)")
    assert "5.59 GB" in list(replace(shown, trainable=5 * 10**8, frozen=10**9).lines())[-1]
