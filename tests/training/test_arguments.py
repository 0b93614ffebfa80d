from pathlib import Path

import pytest

from genrec.errors import RecipeError
from training import arguments as arguments_module
from training.arguments import INSTEAD, OURS, check_arguments, training_arguments
from training.recipe_model import Fitting


def arguments(architecture: str = "causal", **given: object) -> object:
    return training_arguments(architecture, Fitting(training_arguments=given), output=Path("out"), seed=7)


def test_a_training_argument_of_the_recipe_replaces_our_default() -> None:
    made = arguments(learning_rate=0.5, max_steps=9)
    assert (made.learning_rate, made.max_steps, made.seed) == (0.5, 9, 7)
    assert made.weight_decay == 0.01


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_an_unknown_training_argument_is_named_with_the_nearest(architecture: str) -> None:
    with pytest.raises(RecipeError, match=r"training_arguments.learning_rat .*nearest is 'learning_rate'"):
        arguments(architecture, learning_rat=0.1)


def test_an_argument_of_the_other_trainer_is_unknown() -> None:
    assert arguments("seq2seq", generation_max_length=5).generation_max_length == 5
    with pytest.raises(RecipeError, match="generation_max_length is not a field"):
        arguments("causal", generation_max_length=5)


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_argument_that_the_stage_sets_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"training_arguments.{name} is set by the stage"):
        arguments(**{name: "x"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"learning_rate": "fast"}, "learning_rate = 'fast'"),
        ({"num_train_epochs": True}, "num_train_epochs = True"),
        ({"per_device_train_batch_size": 1.5}, "per_device_train_batch_size = 1.5"),
        ({"eval_strategy": "sometimes"}, "sometimes is not a valid"),
        ({"eval_strategy": "no"}, "load_best_model_at_end requires"),
        ({"eval_strategy": "no", "load_best_model_at_end": False}, "leaves nothing to stop by"),
        ({"deepspeed": "zero.json"}, "deepspeed"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_training(given: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=f"training_arguments.*{told}"):
        arguments(**given)


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_an_argument_that_another_key_decides_is_refused_with_that_key(name: str) -> None:
    with pytest.raises(RecipeError, match=f"training_arguments.{name} is not for a recipe; instead there is"):
        arguments(**{name: True})


def test_what_decides_the_weights_follows_from_a_key_of_its_own() -> None:
    assert (made := arguments()).metric_for_best_model == "eval_loss" and not made.greater_is_better
    settings = Fitting(early_stopping_on="recall")
    made = training_arguments("causal", settings, output=Path("out"), seed=7)
    assert made.metric_for_best_model == "eval_recall" and made.greater_is_better


def test_where_it_stops_at_an_epoch_nothing_is_validated() -> None:
    settings = Fitting(stop_at_epoch=2.5, average_checkpoints=3)
    made = training_arguments("causal", settings, output=Path("out"), seed=7)
    assert made.eval_strategy == "no" and not made.load_best_model_at_end and made.save_strategy == "epoch"


def test_tensorboard_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_arguments("causal", Fitting(tensorboard=False), "finetune")
    monkeypatch.setattr(arguments_module, "find_spec", lambda name: None)
    with pytest.raises(
        RecipeError, match=r"finetune.tensorboard needs the package tensorboard: install genrec\[tensor"
    ):
        check_arguments("causal", Fitting(tensorboard=True), "finetune")


def test_processes_that_were_launched_and_would_train_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate has it where there is no accelerator and nothing says so: every one would write every file."""
    monkeypatch.setattr(arguments_module, "world_size", lambda: 2)
    with pytest.raises(RecipeError, match="2 processes were launched, but 1 would train together"):
        arguments()
