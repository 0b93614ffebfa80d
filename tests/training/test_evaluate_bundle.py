import json
from pathlib import Path
from typing import Any

import pytest

from genrec.errors import InputError
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training.evaluate_bundle import evaluate_bundle
from training.rank_table import read_ranks
from training.recipe_model import Evaluate

SETTINGS = Evaluate(num_users=30, bootstrap_samples=100, likelihood_users=10, examples=2)


def evaluate(run: Run, output: Path, **changes: Any) -> list[str]:
    """Of the run's bundle."""
    progress = RememberingProgress()
    given: dict[str, Any] = {
        "prepared": run.work / "prepare", "against": None, "split": "both", "settings": SETTINGS, "device": "cpu",
    }  # fmt: skip
    evaluate_bundle(run.bundle, output, progress=progress, **{**given, **changes})
    return progress.lines


def test_a_sealed_bundle_is_measured_as_its_draft_was(finished: Run, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.bundle.rglob("*")}
    said = evaluate(finished, tmp_path / "out", settings=finished.recipe().evaluate)
    assert {path: path.stat().st_mtime_ns for path in finished.bundle.rglob("*")} == before
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    whole = {name: value for name, value in finished.metrics.items() if name != "stages"}
    assert {name: value for name, value in found.items() if name != "bundle"} == whole
    manifest = json.loads((finished.bundle / "manifest.json").read_text())
    assert found["bundle"] == f"{manifest['name']} {manifest['version']}"
    assert said[0].startswith("test, 40 users")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.json", "ranks.parquet", "examples.json", "report.html", "comparison.png", "buckets.png",
        "coverage.png",
    }  # fmt: skip


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_split_may_be_measured_alone(finished: Run, tmp_path: Path, split: str) -> None:
    said = evaluate(finished, tmp_path, split=split)
    assert list(read_ranks(tmp_path)) == [split]
    assert said[0].startswith(f"{split}, 30 users")
    assert f"{split}, 30 users" in (tmp_path / "report.html").read_text()


def test_another_bundle_stands_beside_it_on_the_same_users(finished: Run, tmp_path: Path) -> None:
    """Itself, renamed by nothing: the difference is nought for every user."""
    evaluate(finished, tmp_path, against=finished.bundle, split="test")
    found = json.loads((tmp_path / "metrics.json").read_text())
    name = found["bundle"]
    assert found["baselines"][name] == found["test"]
    assert found["differences"][name]["recall@10"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert read_ranks(tmp_path)["test"].ranks[name].better.tolist() == (
        read_ranks(tmp_path)["test"].ranks["model"].better.tolist()
    )


def test_a_split_without_cases_is_refused(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate_bundle.rank_baselines", lambda *_: ({"test": [], "validation": []}, None))
    with pytest.raises(InputError, match="no user with a held-out item in test"):
        evaluate(finished, tmp_path, split="test")


def test_what_the_bundle_has_seen_is_refused(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InputError("seen")

    monkeypatch.setattr("training.evaluate_bundle.check_unseen", refuse)
    with pytest.raises(InputError, match="seen"):
        evaluate(finished, tmp_path)
    assert not list(tmp_path.iterdir())
