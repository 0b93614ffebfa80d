from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, set_seed

from genrec.errors import RecipeError
from tests.training.bench import RememberingProgress
from tests.training.families import LORA, Grown, write_grown
from training import fitting
from training.examples import Examples, LastItemExamples, WindowExamples
from training.fitting import CurvePoint, Fit, curve_of, fit, newest_checkpoint, training_arguments
from training.lora import add_lora
from training.proof import Probe
from training.recipe_model import Fitting

QUICK = {
    "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 0.02, "logging_steps": 1,
    "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return write_grown("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return write_grown("t5", tmp_path_factory.mktemp("t5"))


def no_recall(model: PreTrainedModel) -> float:
    return 0.0


@dataclass(frozen=True, eq=False)
class Run:
    """A model and what it is fitted on, put together again for every run as a new process would."""

    grown: Grown
    output: Path
    arguments: dict[str, object] = field(default_factory=lambda: dict(QUICK))
    patience: int = 10
    windows: bool = False
    lora: bool = False
    dropout: float = 0.0

    def model(self) -> PreTrainedModel:
        model = self.grown.load()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.dropout
        set_seed(1)
        return add_lora(model, LORA, self.grown.architecture, self.grown.token_ids) if self.lora else model

    def training(self) -> Examples:
        rng = np.random.default_rng(0)
        sequences = [rng.integers(0, 24, size=size).astype(np.int32) for size in (3, 5, 9, 14, 22, 30)]
        if self.windows:
            return WindowExamples(self.grown.encoder, sequences, seed=1)
        return LastItemExamples(self.grown.encoder, self.grown.architecture, sequences[:4], [1] * 4)

    def fit(
        self, recall: Callable[[PreTrainedModel], float] = no_recall, progress: RememberingProgress | None = None
    ) -> tuple[PreTrainedModel, Fit]:
        model = self.model()
        validation = [np.array([1, 2, 3, 4], dtype=np.int32), np.array([7, 8, 9], dtype=np.int32)]
        result = fit(
            model,
            self.grown.architecture,
            self.training(),
            LastItemExamples(self.grown.encoder, self.grown.architecture, validation, [3, 2]),
            settings=Fitting(training_arguments=self.arguments, early_stopping_patience=self.patience),
            seed=1,
            output=self.output,
            recall=recall,
            progress=progress or RememberingProgress(),
            label="fit",
        )
        return model, result


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Interruption:
    """A recall that ends the process at its n-th evaluation, before the checkpoint of that step is written."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, model: PreTrainedModel) -> float:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return 0.0


# A checkpoint every two steps, five or six steps an epoch: checkpoint-4, from which a run goes on that was stopped at
# its third evaluation, lies in the middle of an epoch.
RESUMED = {
    "windows, all parameters": ("llama", {"windows": True, "arguments": QUICK | {"per_device_train_batch_size": 3}}),
    "windows, lora": (
        "llama",
        {"windows": True, "lora": True, "arguments": QUICK | {"per_device_train_batch_size": 3}},
    ),
    "last items, dropout": ("t5", {"dropout": 0.3, "arguments": QUICK | {"per_device_train_batch_size": 6}}),
    "lora, between epochs": (
        "t5",
        {
            "lora": True,
            "dropout": 0.3,
            "arguments": QUICK | {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3},
        },
    ),
}


@pytest.mark.parametrize(("family", "settings"), RESUMED.values(), ids=RESUMED)
def test_a_run_that_was_interrupted_goes_on_to_the_very_weights_of_one_that_was_not(
    llama: Grown, t5: Grown, tmp_path: Path, family: str, settings: dict[str, object]
) -> None:
    grown = llama if family == "llama" else t5
    model, whole = Run(grown, tmp_path / "whole", **settings).fit()
    assert whole.best_step > 0 and not equal(weights(model), weights(Run(grown, tmp_path, **settings).model()))
    again = Run(grown, tmp_path / "again", **settings)
    with pytest.raises(KeyboardInterrupt):
        again.fit(Interruption(at=3))
    torch.rand(17)  # a new process has its generator elsewhere
    progress = RememberingProgress()
    resumed, result = again.fit(progress=progress)
    assert progress.lines[0] in ("fit: going on from checkpoint-4", "fit: going on from checkpoint-8")
    assert equal(weights(model), weights(resumed))
    assert result == whole


def test_examples_are_told_their_epoch_also_by_a_run_that_goes_on_within_one(llama: Grown, tmp_path: Path) -> None:
    told: list[int] = []

    class Told(WindowExamples):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)
            super().set_epoch(epoch)

    class TellingRun(Run):
        def training(self) -> Examples:
            plain = super().training()
            told.clear()
            return Told(plain.encoder, plain.sequences, plain.seed)

    run = TellingRun(llama, tmp_path, windows=True, arguments=QUICK | {"per_device_train_batch_size": 3})
    with pytest.raises(KeyboardInterrupt):
        run.fit(Interruption(at=6))
    made, *trained = told
    assert (made, *dict.fromkeys(trained)) == (0, 0, 1)
    run.fit()
    made, *trained = told
    assert (made, *dict.fromkeys(trained)) == (0, 1)


def test_the_curve_and_the_steps_are_those_of_the_whole_run(llama: Grown, tmp_path: Path) -> None:
    _, result = Run(llama, tmp_path, windows=True).fit(lambda model: 0.25)
    assert [point.step for point in result.curve] == list(range(2, result.steps + 1, 2))
    assert all(point.validation_recall == 0.25 and point.training_loss is not None for point in result.curve)
    best = min(result.curve, key=lambda point: point.validation_loss)
    assert result.best_step == best.step


def test_curve_points_take_the_training_loss_logged_last() -> None:
    log = [
        {"eval_loss": 3.0, "eval_recall": 0.1, "step": 1, "epoch": 0.5},
        {"loss": 2.0, "step": 2, "epoch": 1.0},
        {"eval_loss": 2.5, "eval_recall": 0.2, "step": 2, "epoch": 1.00049},
        {"train_loss": 1.0, "step": 2, "epoch": 1.0},
    ]
    assert list(curve_of(log)) == [CurvePoint(1, 0.5, None, 3.0, 0.1), CurvePoint(2, 1.0, 2.0, 2.5, 0.2)]


def test_training_stops_when_validation_has_not_improved_for_so_long(llama: Grown, tmp_path: Path) -> None:
    arguments = QUICK | {"learning_rate": 0.0, "num_train_epochs": 50}
    _, result = Run(llama, tmp_path, arguments=arguments, patience=3).fit()
    assert len(result.curve) == 1 + 3


def test_patience_is_not_begun_anew_by_a_run_that_goes_on(llama: Grown, tmp_path: Path) -> None:
    arguments = QUICK | {"learning_rate": 0.0, "num_train_epochs": 50}
    run = Run(llama, tmp_path, arguments=arguments, patience=3)
    with pytest.raises(KeyboardInterrupt):
        run.fit(Interruption(at=3))
    _, result = run.fit()
    assert len(result.curve) == 1 + 3


@pytest.mark.parametrize("lora", [False, True])
def test_the_weights_that_are_kept_are_the_best_on_validation_and_not_the_last(
    llama: Grown, tmp_path: Path, lora: bool
) -> None:
    scores = iter([0.1, 0.7, 0.3, 0.2, 0.4, 0.5, 0.6])
    seen: list[dict[str, torch.Tensor]] = []

    def recall(model: PreTrainedModel) -> float:
        seen.append(weights(model))
        return next(scores)

    arguments = QUICK | {"metric_for_best_model": "eval_recall", "max_steps": 8}
    model, result = Run(llama, tmp_path, arguments=arguments, lora=lora).fit(recall)
    assert result.best_step == 4
    assert equal(weights(model), seen[1])
    assert not equal(weights(model), seen[-1])
    assert (tmp_path / "checkpoint-4").is_dir()


def test_by_default_the_best_is_the_lowest_validation_loss(llama: Grown, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def recall(model: PreTrainedModel) -> float:
        seen.append(weights(model))
        return 0.0

    arguments = QUICK | {"learning_rate": 0.3, "num_train_epochs": 4, "lr_scheduler_type": "constant"}
    model, result = Run(llama, tmp_path, arguments=arguments).fit(recall)
    losses = [point.validation_loss for point in result.curve]
    assert losses[-1] > min(losses)
    assert equal(weights(model), seen[losses.index(min(losses))])


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_batch_in_pieces_has_the_loss_and_the_step_of_the_whole(
    llama: Grown, t5: Grown, tmp_path: Path, family: str
) -> None:
    """T5 gives a mean over the piece whatever it is told of the whole batch."""
    grown = llama if family == "llama" else t5
    pieces = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    plain = QUICK | {"max_steps": 2, "max_grad_norm": 0.1, "optim": "sgd"}
    found = [Run(grown, tmp_path / name, plain | way).fit() for name, way in (("whole", {}), ("pieces", pieces))]
    losses = [[(point.training_loss, point.validation_loss) for point in result.curve] for _, result in found]
    assert np.allclose(*losses, rtol=1e-3)
    whole, in_pieces = (weights(model) for model, _ in found)
    assert all(torch.allclose(whole[name], in_pieces[name], atol=1e-5) for name in whole)


@pytest.mark.parametrize("lora", [False, True])
def test_mixed_precision_ends_with_training(llama: Grown, tmp_path: Path, lora: bool) -> None:
    """Else the proof of the merged model would compare it with one that rounds to bfloat16, and always fail."""
    arguments = QUICK | {"bf16": True, "use_cpu": True, "max_steps": 2}
    run = Run(llama, tmp_path, arguments=arguments, lora=lora)
    model, _ = run.fit()
    same = run.model()
    same.load_state_dict(model.state_dict())
    probes = [Probe.of(one, llama.encoder, "causal").logits for one in (model, same)]
    assert torch.equal(*probes)


def test_a_finished_run_that_is_asked_again_gives_the_same_weights(llama: Grown, tmp_path: Path) -> None:
    run = Run(llama, tmp_path, windows=True)
    model, first = run.fit()
    again, second = run.fit()
    assert equal(weights(model), weights(again))
    assert first == second


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    for step, state in ((2, "{}"), (10, "{}"), (12, '{"global_st'), (14, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.name == "checkpoint-10"


def test_a_run_goes_on_past_a_checkpoint_that_was_being_written_when_it_was_killed(
    llama: Grown, tmp_path: Path
) -> None:
    model, whole = Run(llama, tmp_path / "whole").fit()
    run = Run(llama, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run.fit(Interruption(at=3))
    half = tmp_path / "killed" / "checkpoint-6"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    resumed, result = run.fit()
    assert equal(weights(model), weights(resumed))
    assert result == whole


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


@pytest.mark.parametrize("name", ["output_dir", "seed", "resume_from_checkpoint", "remove_unused_columns"])
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
        ({"deepspeed": "zero.json"}, "deepspeed"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_training(given: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=f"training_arguments.*{told}"):
        arguments(**given)


def test_processes_that_were_launched_and_would_train_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate has it where there is no accelerator and nothing says so: every one would write every file."""
    monkeypatch.setattr(fitting, "world_size", lambda: 2)
    with pytest.raises(RecipeError, match="2 processes were launched, but 1 would train together"):
        arguments()
