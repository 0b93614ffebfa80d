from pathlib import Path

import pytest

from genrec.bundle import layout
from genrec.errors import InputError
from training.publish import check_destination, publish


def bundle(path: Path, text: str) -> Path:
    (path / "model").mkdir(parents=True)
    (path / layout.MANIFEST).write_text(text)
    (path / "model" / "weights").write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_bundle_is_copied_whole_and_the_original_stays(tmp_path: Path) -> None:
    sealed = bundle(tmp_path / "seal", "new")
    assert publish(sealed, tmp_path / "bundles" / "demo", replace=False)
    assert names(tmp_path / "bundles" / "demo") == names(sealed) == [layout.MANIFEST, "model/weights"]
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["demo"]


def test_another_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    sealed, there = bundle(tmp_path / "seal", "new"), bundle(tmp_path / "bundles" / "demo", "old")
    (there / "extra").write_text("old")
    with pytest.raises(InputError, match="--replace"):
        check_destination(there, sealed, replace=False)
    with pytest.raises(InputError, match="--replace"):
        publish(sealed, there, replace=False)
    assert (there / layout.MANIFEST).read_text() == "old"
    assert publish(sealed, there, replace=True)
    assert names(there) == [layout.MANIFEST, "model/weights"]
    assert [path.name for path in there.parent.iterdir()] == ["demo"]


def test_the_same_bundle_is_no_obstacle_and_is_not_copied_again(tmp_path: Path) -> None:
    sealed, there = bundle(tmp_path / "seal", "same"), bundle(tmp_path / "demo", "same")
    check_destination(there, sealed, replace=False)
    assert not publish(sealed, there, replace=False)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, kind: str) -> None:
    sealed, there = bundle(tmp_path / "seal", "new"), tmp_path / "thesis"
    if kind == "file":
        there.write_text("years of work")
    else:
        there.mkdir()
        (there / "chapter").write_text("years of work")
    with pytest.raises(InputError, match="is not a bundle"):
        publish(sealed, there, replace=True)
    assert there.exists()


def test_a_copy_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, there = bundle(tmp_path / "seal", "new"), bundle(tmp_path / "bundles" / "demo", "old")

    def full(_: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(layout, "sync_tree", full)
    with pytest.raises(OSError, match="no space"):
        publish(sealed, there, replace=True)
    assert (there / layout.MANIFEST).read_text() == "old"
    assert [path.name for path in there.parent.iterdir()] == ["demo"]


def test_a_run_never_writes_over_the_bundle_that_it_goes_on_from(tmp_path: Path) -> None:
    base, sealed = bundle(tmp_path / "bundles" / "may", "may"), tmp_path / "runs" / "seal"
    with pytest.raises(InputError, match="a way back"):
        check_destination(base, sealed, replace=True, base=base, work=tmp_path / "runs")
    inside = bundle(tmp_path / "runs" / "seal" / "bundle", "may")
    with pytest.raises(InputError, match="which the run writes over"):
        check_destination(tmp_path / "new", sealed, replace=False, base=inside, work=tmp_path / "runs")
    (tmp_path / "link").symlink_to(base)
    with pytest.raises(InputError, match="a way back"):
        check_destination(base, sealed, replace=True, base=tmp_path / "link", work=tmp_path / "runs")
    check_destination(tmp_path / "new", sealed, replace=False, base=base, work=tmp_path / "runs")
