from pathlib import Path

import pytest

from genrec.errors import InputError
from training.pipeline import RECORD
from training.publish import check_destination, publish


@pytest.fixture
def result(tmp_path: Path) -> Path:
    (tmp_path / "seal" / "model").mkdir(parents=True)
    for name in ("manifest.json", "model/weights", f"model/{RECORD}", RECORD):
        (tmp_path / "seal" / name).write_text("new")
    return tmp_path / "seal"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_everything_but_the_stages_record_is_copied(result: Path, tmp_path: Path) -> None:
    publish(result, tmp_path / "bundles" / "demo")
    assert names(tmp_path / "bundles" / "demo") == ["manifest.json", f"model/{RECORD}", "model/weights"]
    assert names(result) == ["manifest.json", f"model/{RECORD}", "model/weights", RECORD]


def test_what_is_there_is_replaced_whole_and_only_when_asked(result: Path, tmp_path: Path) -> None:
    there = tmp_path / "demo"
    there.mkdir()
    (there / "old").write_text("old")
    with pytest.raises(InputError, match="--replace"):
        publish(result, there)
    assert names(there) == ["old"]
    publish(result, there, replace=True)
    assert names(there) == ["manifest.json", f"model/{RECORD}", "model/weights"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "seal"]


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_destination(tmp_path / "demo", replace=True)
