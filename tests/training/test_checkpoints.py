import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.checkpoints import SEAL, best_first, damage, newest, remove_after, scores_of, seal, superseded

steps = st.lists(st.integers(1, 40), min_size=1, unique=True).map(sorted)


def write(output: Path, step: int, best: int | None = None, sealed: bool = True) -> Path:
    path = output / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "trainer_state.json").write_text(json.dumps({"best_global_step": best, "global_step": step}))
    if sealed:
        seal(path)
    return path


def test_the_newest_that_is_whole_is_gone_on_from(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent") == (None, [])
    write(tmp_path, 2)
    write(tmp_path, 10, best=2)
    write(tmp_path, 12, sealed=False)
    (write(tmp_path, 14) / "model.safetensors").write_bytes(b"weighs")
    last, passed = newest(tmp_path)
    assert last is not None and last.step == 10 and last.state["global_step"] == 10
    assert passed == [
        "checkpoint-14 is damaged (model.safetensors is not what was written)",
        "checkpoint-12 was not written to its end",
    ]
    remove_after(tmp_path, last.step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_one_whose_best_is_gone_is_of_no_use(tmp_path: Path) -> None:
    write(tmp_path, 2)
    write(tmp_path, 4, best=3)
    last, passed = newest(tmp_path)
    assert last is not None and last.step == 2
    assert passed == ["checkpoint-4 needs checkpoint-3, which was not written to its end"]


@pytest.mark.parametrize("harm", ["more", "less", "seal"])
def test_any_change_to_its_files_is_damage(tmp_path: Path, harm: str) -> None:
    path = write(tmp_path, 1)
    assert damage(path) is None
    match harm:
        case "more":
            (path / "extra").write_text("x")
        case "less":
            (path / "model.safetensors").unlink()
        case "seal":
            (path / SEAL).write_text("{")
    assert damage(path)


def test_a_checkpoint_that_is_written_again_counts_only_when_it_is_sealed_again(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    (path / "model.safetensors").write_bytes(b"others")
    assert damage(path)
    seal(path)
    assert damage(path) is None


@given(steps, st.data(), st.integers(1, 5), st.integers(1, 8))
def test_the_newest_and_the_best_stay_and_as_many_newer_ones_as_there_is_room_for(
    steps: list[int], data: st.DataObject, keep_best: int, limit: int
) -> None:
    scores = data.draw(st.dictionaries(st.sampled_from(steps), st.integers(0, 5).map(float)))
    gone = superseded(steps, scores, keep_best=keep_best, limit=limit)
    kept = [step for step in steps if step not in gone]
    assert set(gone) <= set(steps) and steps[-1] in kept
    best = best_first(steps, scores)[:keep_best]
    assert set(best) <= set(kept)
    assert len(kept) <= max(limit, len(best) + 1)
    room = [step for step in (scores or steps) if step not in (*best, steps[-1])]
    if len(kept) < limit:
        assert set(room) <= set(kept)
    elif set(kept) - set(best) - {steps[-1]}:
        assert min(set(kept) - set(best) - {steps[-1]}) >= max(set(room) - set(kept), default=0)


def test_of_equal_scores_the_earlier_is_better() -> None:
    assert best_first([1, 2, 3, 4], {1: 0.5, 2: 0.7, 4: 0.7}) == [2, 4, 1]


def test_scores_are_more_for_better_whatever_the_metric() -> None:
    log = [{"eval_loss": 3.0, "step": 1}, {"loss": 1.0, "step": 2}, {"eval_loss": 2.0, "step": 3}]
    assert scores_of(log, "eval_loss", greater_is_better=False) == {1: -3.0, 3: -2.0}
    assert scores_of(log, "eval_loss", greater_is_better=True) == {1: 3.0, 3: 2.0}
