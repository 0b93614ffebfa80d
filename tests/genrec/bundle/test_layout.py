"""Files of a bundle are found without following links, and a directory is replaced without a moment of loss."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from genrec.bundle import layout


def test_walking_finds_files_and_links_and_does_not_follow_them(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "file").touch()
    (tmp_path / "a").touch()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    found = [path.relative_to(tmp_path).as_posix() for path in layout.walk(tmp_path)]
    assert found == ["a", "b/c/file", "broken", "loop"]


def test_a_file_of_several_blocks_is_hashed_whole(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "big").write_bytes(content)
    assert layout.sha256_of(tmp_path / "big") == hashlib.sha256(content).hexdigest()


def directory(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_directory_takes_a_free_place(tmp_path: Path) -> None:
    layout.replace_directory(directory(tmp_path / "new", "new"), tmp_path / "place")
    assert (tmp_path / "place" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_directory_takes_the_place_of_another(tmp_path: Path) -> None:
    layout.replace_directory(directory(tmp_path / "new", "new"), directory(tmp_path / "place", "old").parent / "place")
    assert (tmp_path / "place" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_the_old_directory_returns_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, place = directory(tmp_path / "new", "new"), directory(tmp_path / "place", "old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self == new:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk full"):
        layout.replace_directory(new, place)
    assert (place / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "place"]


def test_what_a_killed_process_of_the_same_number_set_aside_is_no_hindrance(tmp_path: Path) -> None:
    directory(tmp_path / f".place.replaced-{os.getpid()}", "stale")
    layout.replace_directory(directory(tmp_path / "new", "new"), directory(tmp_path / "place", "old"))
    assert (tmp_path / "place" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("weights")
    layout.link_or_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").stat().st_ino == (tmp_path / "one").stat().st_ino


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_where_a_file_can_have_one_name_only_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "one").write_text("weights")
    layout.link_or_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "weights"
    assert (tmp_path / "two").stat().st_ino != (tmp_path / "one").stat().st_ino


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        layout.link_or_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "two"
