from pathlib import Path

from tests.training.runs import Run
from training.report.health import semantic_id_pictures


def test_pictures_are_those_that_are_listed_and_there(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.png").write_bytes(b"")
    listed = [{"file": "plots/a.png", "caption": "A"}, {"file": "plots/gone.png", "caption": "B"}]
    assert semantic_id_pictures(tmp_path, {"plots": listed}) == {tmp_path / "plots" / "a.png": "A"}
    assert semantic_id_pictures(tmp_path, {}) == {}


def test_the_stage_leaves_some(finished: Run) -> None:
    import json

    directory = finished.work / "quantize"
    found = semantic_id_pictures(directory, json.loads((directory / "report.json").read_text()))
    assert found and all(caption for caption in found.values())
