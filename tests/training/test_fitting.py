import gc
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, set_seed

from genrec.errors import Stopped, TrainingError
from tests.training.bench import RememberingProgress
from tests.training.families import LORA, Grown, write_grown
from training.examples import Collator, Examples, LastItemExamples, WindowExamples
from training.fitting import CurvePoint, Fit, curve_of, fit
from training.lora import add_lora
from training.mixed_examples import MixedExamples, Part
from training.proof import Probe
from training.recipe_model import Fitting
from training.trainer import GroupedByLength

QUICK = {
    "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 0.02, "logging_steps": 1,
    "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_collected() -> Iterator[None]:
    """The Trainer collects garbage before it begins; over all of torch that takes longer than a run of these models."""
    gc.freeze()
    yield
    gc.unfreeze()


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
    tasks: bool = False
    lora: bool = False
    dropout: float = 0.0
    settings: dict[str, object] = field(default_factory=dict)
    event_files: Path | None = None

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
        last = LastItemExamples(self.grown.encoder, self.grown.architecture, sequences[:4], [1] * 4)
        windows = WindowExamples(self.grown.encoder, sequences, seed=1) if self.windows or self.tasks else last
        if self.tasks:
            return MixedExamples((Part("window", windows, len(windows) - 2, 0), Part("last", last, 5, 1)), seed=1)
        return windows

    def fit(
        self, recall: Callable[[PreTrainedModel], float] = no_recall, progress: RememberingProgress | None = None
    ) -> tuple[PreTrainedModel, Fit]:
        model = self.model()
        result = fit(
            model,
            self.grown.architecture,
            self.training(),
            validation_of(self.grown),
            settings=Fitting(training_arguments=self.arguments, early_stopping_patience=self.patience, **self.settings),
            seed=1,
            output=self.output,
            recall=recall,
            progress=progress or RememberingProgress(),
            label="fit",
            event_files=self.event_files,
        )
        return model, result


def validation_of(grown: Grown) -> LastItemExamples:
    sequences = [np.array([1, 2, 3, 4], dtype=np.int32), np.array([7, 8, 9], dtype=np.int32)]
    return LastItemExamples(grown.encoder, grown.architecture, sequences, [3, 2])


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
    "tasks, by length": (
        "llama",
        {
            "tasks": True,
            "arguments": QUICK | {"per_device_train_batch_size": 4, "train_sampling_strategy": "group_by_length"},
        },
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
    assert {"fit: going on from checkpoint-4", "fit: going on from checkpoint-8"} & set(progress.lines)
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


def test_curve_points_are_the_evaluations() -> None:
    log = [
        {"eval_loss": 3.0, "eval_recall": 0.1, "step": 0, "epoch": 0.0},
        {"loss": 2.0, "step": 2, "epoch": 1.0},
        {"eval_loss": 2.5, "eval_recall": 0.2, "training_loss": 2.1, "step": 2, "epoch": 1.00049},
        {"train_loss": 1.0, "step": 2, "epoch": 1.0},
        {"mean_loss": 1.0, "step": 2, "epoch": 1.0},
    ]
    assert list(curve_of(log)) == [CurvePoint(0, 0.0, None, 3.0, 0.1), CurvePoint(2, 1.0, 2.1, 2.5, 0.2)]


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

    run = Run(llama, tmp_path, QUICK | {"max_steps": 8}, lora=lora, settings={"early_stopping_on": "recall"})
    model, result = run.fit(recall)
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


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_smoothed_labels_train_every_model_and_leave_the_validation_loss_plain(
    llama: Grown, t5: Grown, tmp_path: Path, family: str, lora: bool
) -> None:
    grown = llama if family == "llama" else t5
    still = QUICK | {"learning_rate": 0.0, "max_steps": 2}
    smoothed = still | {"label_smoothing_factor": 0.2}
    (_, plain), (_, smooth) = (
        Run(grown, tmp_path / name, way, lora=lora).fit() for name, way in (("plain", still), ("smooth", smoothed))
    )
    assert plain.curve[0].validation_loss == smooth.curve[0].validation_loss
    assert plain.curve[0].training_loss != smooth.curve[0].training_loss
    model, result = Run(grown, tmp_path / "moved", QUICK | {"label_smoothing_factor": 0.2}, lora=lora).fit()
    assert result.curve[-1].training_loss < result.curve[0].training_loss
    assert not equal(weights(model), weights(Run(grown, tmp_path, lora=lora).model()))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_smoothing_is_that_of_torch_and_the_same_in_pieces(
    llama: Grown, t5: Grown, tmp_path: Path, family: str
) -> None:
    grown = llama if family == "llama" else t5
    run = Run(grown, tmp_path)
    model, examples = run.model().eval(), run.training()
    batch = Collator()(examples.batch(np.arange(len(examples))))
    with torch.no_grad():
        logits, labels = model(**batch).logits, batch["labels"]
    if family == "llama":
        logits, labels = logits[:, :-1], labels[:, 1:]
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=0.2
    )
    size = len(examples)
    still = QUICK | {
        "learning_rate": 0.0,
        "max_steps": 1,
        "label_smoothing_factor": 0.2,
        "eval_steps": 1,
        "save_steps": 1,
    }
    ways = (
        {"per_device_train_batch_size": size},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": size},
    )
    for number, way in enumerate(ways):
        _, result = Run(grown, tmp_path / str(number), still | way).fit()
        assert result.curve[0].training_loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_a_mean_of_checkpoints_is_taken_if_it_is_better_on_validation(llama: Grown, tmp_path: Path, lora: bool) -> None:
    """Steps that are too long jump from side to side of a valley: its floor is between them."""
    bouncing = QUICK | {"learning_rate": 0.2, "lr_scheduler_type": "constant", "num_train_epochs": 6, "warmup_steps": 0}
    seen: list[dict[str, torch.Tensor]] = []

    def recall(model: PreTrainedModel) -> float:
        seen.append(weights(model))
        return 0.0

    alone, _ = Run(llama, tmp_path / "alone", bouncing, lora=lora).fit(recall)
    progress = RememberingProgress()
    model, result = Run(llama, tmp_path / "mean", bouncing, lora=lora, settings={"average_checkpoints": 4}).fit(
        progress=progress
    )
    assert result.averaged[0] == result.best_step and 1 < len(result.averaged) <= 4
    assert progress.lines[-1].startswith(f"fit: mean of checkpoint-{result.best_step}, checkpoint-")
    steps = [point.step for point in result.curve]
    members = [seen[steps.index(step)] for step in result.averaged]
    for name, weight in weights(model).items():
        mean = torch.stack([member[name].double() for member in members]).mean(0)
        assert torch.allclose(weight.double(), mean, atol=1e-6), name
    assert loss_of(llama, model) < loss_of(llama, alone)
    assert len(result.curve) == len(steps) and len(list((tmp_path / "mean").iterdir())) >= 4


def test_a_mean_that_is_worse_is_not_taken(llama: Grown, tmp_path: Path) -> None:
    scores = iter([0.1, 0.2, 0.9, 0.3, 0.9, 0.8, 0.7, 0.6])
    settings = {"average_checkpoints": 3, "early_stopping_on": "recall"}
    run, progress = Run(llama, tmp_path, QUICK | {"max_steps": 8}, settings=settings), RememberingProgress()
    seen: list[dict[str, torch.Tensor]] = []

    def recall(model: PreTrainedModel) -> float:
        seen.append(weights(model))
        return next(scores)

    model, result = run.fit(recall, progress)
    assert result.averaged == (6,) and result.best_step == 6
    assert equal(weights(model), seen[2])
    assert progress.lines[-1] == "fit: no mean of the best 3 checkpoints is better on validation than checkpoint-6"


def loss_of(grown: Grown, model: PreTrainedModel) -> float:
    examples = validation_of(grown)
    with torch.no_grad():
        return float(model.eval()(**Collator()(examples.batch(np.arange(len(examples))))).loss)


ENDLESS = QUICK | {"num_train_epochs": 50}


def test_a_run_that_early_stopping_has_ended_is_not_taken_further_when_it_is_asked_again(
    llama: Grown, tmp_path: Path
) -> None:
    run = Run(llama, tmp_path, ENDLESS | {"learning_rate": 0.0}, patience=3)
    model, first = run.fit()
    again, second = run.fit(lambda model: 1.0)
    assert first == second
    assert equal(weights(model), weights(again))


def test_it_stops_at_an_epoch_without_validation_and_the_schedule_is_that_of_the_whole_run(
    llama: Grown, tmp_path: Path
) -> None:
    """Three steps an epoch: one and two thirds of them are five."""
    seen: dict[int, dict[str, torch.Tensor]] = {}
    every_step = QUICK | {"eval_steps": 1, "save_steps": 1, "num_train_epochs": 3}
    whole = Run(llama, tmp_path / "whole", every_step)
    whole.fit(lambda model: seen.update({len(seen) + 1: weights(model)}) or 0.0)
    run = Run(llama, tmp_path / "short", QUICK | {"num_train_epochs": 3}, settings={"stop_at_epoch": 1.25})
    model, result = run.fit()
    assert (result.steps, result.best_step, result.curve) == (5, 5, ())
    assert equal(weights(model), seen[5])
    assert equal(weights(run.fit()[0]), seen[5])


def sigterm_at(evaluation: int) -> Callable[[PreTrainedModel], float]:
    left = iter(range(evaluation - 1, -1000, -1))

    def recall(model: PreTrainedModel) -> float:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.0

    return recall


GROUPED = {"train_sampling_strategy": "group_by_length", "num_train_epochs": 3, "per_device_train_batch_size": 4}


@pytest.mark.parametrize("lora", [False, True])
def test_a_stop_saves_what_the_step_has_made_and_the_run_goes_on_from_there(
    llama: Grown, tmp_path: Path, lora: bool
) -> None:
    """In the second epoch, between two evaluations and two lines of the log; also in an order by length."""
    arguments = QUICK | GROUPED | {"logging_steps": 3}
    run = Run(llama, tmp_path / "whole", arguments, lora=lora, dropout=0.2)
    model, whole = run.fit()
    again = replace(run, output=tmp_path / "again")
    with pytest.raises(Stopped, match="fit was stopped by SIGTERM after step 11; the same command goes on"):
        again.fit(sigterm_at(5))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    torch.rand(17)
    progress = RememberingProgress()
    resumed, result = again.fit(progress=progress)
    assert progress.lines[0] == "fit: going on from checkpoint-11"
    assert equal(weights(model), weights(resumed))
    assert result == whole
    kept = [sorted(path.name for path in output.iterdir()) for output in (run.output, again.output)]
    assert kept[0] == kept[1] and len(kept[0]) == 2


def test_batches_by_length_hold_every_example_once_an_epoch_and_pad_less(llama: Grown) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 24, size=size).astype(np.int32) for size in rng.integers(2, 6, size=400)]
    examples = WindowExamples(llama.encoder, sequences, seed=1)
    sampler = GroupedByLength(examples, 8, seed=1)
    orders = []
    for epoch in (0, 1):
        examples.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(len(examples)))
        spread = [np.ptp(examples.lengths()[order[at : at + 8]]) for at in range(0, len(order) - 7, 8)]
        assert np.mean(np.array(spread) == 0) > 0.9
        orders.append(order)
    assert orders[0] != orders[1]
    examples.set_epoch(0)
    assert list(sampler) == orders[0]


@pytest.mark.parametrize("harm", ["cut", "flipped", "absent", "best"])
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(llama: Grown, tmp_path: Path, harm: str) -> None:
    model, whole = Run(llama, tmp_path / "whole").fit()
    run = Run(llama, tmp_path / "harmed", settings={"average_checkpoints": 3})
    with pytest.raises(KeyboardInterrupt):
        run.fit(Interruption(at=3))
    file = tmp_path / "harmed" / ("checkpoint-2" if harm == "best" else "checkpoint-4") / "optimizer.pt"
    content = bytearray(file.read_bytes())
    match harm:
        case "cut":
            file.write_bytes(content[:-100])
        case "absent":
            file.unlink()
        case _:
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    progress = RememberingProgress()
    resumed, result = Run(llama, tmp_path / "harmed").fit(progress=progress)
    assert (result, equal(weights(model), weights(resumed))) == (whole, True)
    told = "fit: checkpoint-4 is damaged (optimizer.pt is not what was written)"
    assert progress.lines[:2] == (
        ["fit: going on from checkpoint-4"] if harm == "best" else [told, "fit: going on from checkpoint-2"]
    )


def test_a_checkpoint_whose_best_is_damaged_is_of_no_use(llama: Grown, tmp_path: Path) -> None:
    worse = iter([0.9, 0.1, 0.0, 0.0, 0.0])
    run = Run(llama, tmp_path, settings={"early_stopping_on": "recall"})

    def recall(model: PreTrainedModel) -> float:
        value = next(worse)
        if value == 0.0:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        run.fit(recall)
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"weights")
    progress = RememberingProgress()
    run.fit(progress=progress)
    assert progress.lines == [
        "fit: checkpoint-4 needs checkpoint-2, which is damaged (model.safetensors is not what was written)",
        "fit: checkpoint-2 is damaged (model.safetensors is not what was written)",
        "fit: no checkpoint is whole, beginning again",
    ]


def test_weights_that_run_away_end_the_run_with_a_sentence(llama: Grown, tmp_path: Path) -> None:
    arguments = QUICK | {"learning_rate": 1e9, "max_grad_norm": 0.0, "optim": "sgd", "warmup_steps": 0}
    with pytest.raises(TrainingError, match=r"fit: validation loss is (nan|inf) after step 2; .*learning_rate"):
        Run(llama, tmp_path, arguments).fit()


def test_nothing_is_cached_while_training(llama: Grown, tmp_path: Path) -> None:
    caches = []

    class Watching(Run):
        def model(self) -> PreTrainedModel:
            model = super().model()
            model.config.use_cache = True
            plain = model.forward

            def forward(*arguments: object, **named: object) -> object:
                out = plain(*arguments, **named)
                caches.append(out.past_key_values)
                return out

            model.forward = forward
            return model

    Watching(llama, tmp_path).fit()
    assert caches and not any(caches)


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("lora", [False, True])
def test_checkpointing_of_activations_gives_the_same_weights(
    llama: Grown, t5: Grown, tmp_path: Path, family: str, lora: bool
) -> None:
    grown = llama if family == "llama" else t5
    checkpointed = QUICK | {"gradient_checkpointing": True}
    ways = {"plain": QUICK, "checkpointed": checkpointed}
    plain, again = (weights(Run(grown, tmp_path / name, way, lora=lora).fit()[0]) for name, way in ways.items())
    # T5 adds the gradients of its shared position bias in another order
    assert all(torch.allclose(plain[name], again[name], rtol=0, atol=1e-5) for name in plain)


def test_a_compiled_model_learns_the_same_up_to_rounding(llama: Grown, tmp_path: Path) -> None:
    compiled = QUICK | {"torch_compile": True, "torch_compile_backend": "eager", "max_steps": 2}
    settings = {"pad_to_multiple_of": 32}
    ways = {"plain": QUICK | {"max_steps": 2}, "compiled": compiled}
    plain, again = (Run(llama, tmp_path / name, way, settings=settings).fit()[0] for name, way in ways.items())
    one, other = weights(plain), weights(again)
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_tensorboard_gets_losses_and_recall(llama: Grown, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run(llama, tmp_path / "run", event_files=tmp_path / "board")
    with pytest.raises(KeyboardInterrupt):
        run.fit(Interruption(at=3))
    _, result = run.fit(lambda model: 0.5)
    board = events.EventAccumulator(str(tmp_path / "board")).Reload()
    losses = {event.step: event.value for event in board.Scalars("evaluation/validation_loss")}
    assert losses == pytest.approx({point.step: point.validation_loss for point in result.curve})
    assert [event.value for event in board.Scalars("evaluation/recall_at_10")][-1] == 0.5
    assert [event.step for event in board.Scalars("training/loss")] == list(range(1, result.steps + 1))
