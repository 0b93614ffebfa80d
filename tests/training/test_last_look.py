"""A run that trains on validation too, once a measured run has said how long: test alone is held out."""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.training.runs import Run

LAST_LOOK = ("prepare.train_on_validation=true", "pretrain.stop_at_epoch=1", "finetune.stop_at_epoch=1")


@pytest.mark.parametrize("architecture", ["causal"], indirect=True)
def test_it_is_measured_on_test_and_nowhere_else(finished: Run, tmp_path: Path) -> None:
    run = Run("causal", tmp_path / "work", ())
    run.again(*LAST_LOOK)
    table = pl.read_parquet(run.work / "prepare" / "interactions.parquet")
    measured = pl.read_parquet(finished.work / "prepare" / "interactions.parquet")
    tested = measured["split"] == "test"
    assert table.filter(tested)["split"].unique().to_list() == ["test"]
    assert table.filter(~tested)["split"].unique().to_list() == ["train"]
    assert {"test", "baselines"} <= run.metrics.keys()
    assert not {"validation", "validation_baselines"} & run.metrics.keys()
    assert run.metrics["users"] == {"test": finished.metrics["users"]["test"]}
    assert run.metrics["baselines"]["markov"] == run.metrics["baselines"]["markov_with_validation"]
    assert run.metrics["baselines"]["markov"] == finished.metrics["baselines"]["markov_with_validation"]
    assert json.loads((run.bundle / "manifest.json").read_text())["provenance"]
    assert "Validation" not in (run.bundle / "training" / "report.html").read_text()
