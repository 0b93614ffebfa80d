import json
from pathlib import Path

import pytest

from training.stage_report import write_report


def test_the_same_facts_stand_in_both_files(tmp_path: Path) -> None:
    facts = {"items": 12345, "parts": [{"part": "tfidf", "weight": 0.5}], "split": {"train": 3}, "shown": ["a", "b"]}
    write_report(tmp_path, "Data", facts, ["A note."])
    document = json.loads((tmp_path / "report.json").read_text())
    assert document == {**facts, "notes": ["A note."]}
    text = (tmp_path / "report.md").read_text()
    for part in ("# Data", "- A note.", "| items | 12,345 |", "## parts", "| tfidf | 0.5 |", "| train | 3 |", "- a"):
        assert part in text


def test_a_title_cannot_break_a_table(tmp_path: Path) -> None:
    write_report(tmp_path, "Data", {"clusters": [{"titles": ["a|b", "c\nd"]}]})
    assert "| a\\|b; c d |" in (tmp_path / "report.md").read_text()


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path, "Data", {"loss": float("nan")})
