"""The whole path: every stage after the other, and which of them a changed recipe runs again."""

from pathlib import Path

import pytest

from genrec.errors import TrainingError
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.training.runs import Run
from training import lora, merge
from training.pipeline import read_record
from training.stages import STAGES, stages_of

NAMES = [stage.name for stage in STAGES]


def test_a_run_ends_in_a_bundle_that_verifies_itself_and_answers(finished: Run) -> None:
    recommender = Recommender.load(finished.bundle, device="cpu")
    assert recommender.bundle.manifest.architecture == finished.architecture
    history = [recommender.bundle.catalog.item_id(row) for row in (3, 1, 4)]
    (answer,) = recommender.recommend([Request(history, k=5)])
    assert len(answer.items) == 5
    assert not {item.item_id for item in answer.items} & set(history)


def test_the_run_prints_both_proofs(finished: Run) -> None:
    said = "\n".join(finished.lines)
    assert "gradient proof: 18/18 input and 18/18 output rows of item tokens got a gradient" in said
    assert "merge proof: merged, saved and reloaded, a logit differs by" in said
    assert "finetune: LoRA in" in said
    assert "pretrain: validation recall@10" in said
    assert "finetune: validation recall@10" in said


def test_a_second_run_does_nothing(finished: Run) -> None:
    assert finished.again() == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluate.cutoffs=[3, 10]", ["evaluate", "seal"]),
        ("bundle.max_k=25", ["assemble", "evaluate", "seal"]),
        ("evaluate.num_users=30", ["baselines", "evaluate", "seal"]),
    ],
)
def test_a_changed_section_runs_what_depends_on_it_and_nothing_before(
    finished: Run, tmp_path: Path, override: str, expected: list[str]
) -> None:
    run = finished.copy(tmp_path / "work")
    assert run.again(override) == expected
    assert run.again(override) == []


def test_stages_name_the_stages_before_them_and_sections_that_exist(finished: Run) -> None:
    for place, stage in enumerate(STAGES):
        assert set(stage.needs) <= set(NAMES[:place])
        stage.section(finished.recipe())


def fails(run: Run, stage: str, *overrides: str) -> str:
    """The run ends with an error of the stage, and nothing from there on is trusted, now or by the next run."""
    with pytest.raises(TrainingError) as caught:
        run.again(*overrides)
    for name in NAMES[NAMES.index(stage) :]:
        assert read_record(run.work / name) is None
        assert not (run.work / name).exists()
    return str(caught.value)


def test_a_run_whose_new_rows_are_frozen_fails(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "work", until="pretrain")
    told = fails(run, "finetune", "finetune.lora.train_item_tokens=false")
    assert "0/18 input and 0/18 output rows" in told


def test_a_run_whose_policy_forgets_rows_fails(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "trainable_tokens", lambda model, ids: list(ids)[:-1])
    told = fails(finished.copy(tmp_path / "work", until="pretrain"), "finetune")
    assert "17/18 input" in told


def test_a_run_whose_head_is_another_after_saving_fails_and_a_mended_one_goes_on(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished.copy(tmp_path / "work", until="finetune")
    save = merge.save_checkpoint

    def untying_save(model: object, words: object, path: Path) -> None:
        head = model.get_output_embeddings()
        head.weight = type(head.weight)(head.weight.detach() * 1.01)
        model.config.tie_word_embeddings = False
        save(model, words, path)

    with monkeypatch.context() as patch:
        patch.setattr(merge, "save_checkpoint", untying_save)
        assert "differs from the live one" in fails(run, "merge")
    assert run.again() == ["merge", "assemble", "baselines", "evaluate", "seal"]


def test_a_run_that_goes_on_from_a_bundle_says_what_changes_before_it_is_sealed(finished: Run) -> None:
    assert stages_of(finished.recipe()) == STAGES
    *before, churned, last = stages_of(finished.recipe("base.bundle=somewhere"))
    assert [stage.name for stage in (*before, last)] == NAMES
    assert churned.name == "churn" and "churn" in last.needs
    assert all(stage.reads_base for stage in before if stage.name in ("prepare", "embed", "quantize", "vocabulary"))
