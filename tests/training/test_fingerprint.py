import os
from pathlib import Path

import pytest

from genrec.errors import DataError
from training.fingerprint import content_sha256, tree_hashes, write_durably


def test_a_hash_follows_content_and_names_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_text("1")
    before = content_sha256(tmp_path / "a")
    os.utime(tmp_path / "a" / "b" / "x", (1, 1))
    assert content_sha256(tmp_path / "a") == before
    (tmp_path / "a" / "b" / "x").write_text("2")
    changed = content_sha256(tmp_path / "a")
    assert changed != before
    (tmp_path / "a" / "b" / "x").rename(tmp_path / "a" / "b" / "y")
    assert content_sha256(tmp_path / "a") not in (before, changed)


def test_only_top_level_names_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("skip", "keep", "in/skip"):
        (tmp_path / name).write_text(name)
    assert list(tree_hashes(tmp_path, without=("skip",))) == ["in/skip", "keep"]


def test_what_is_not_there_is_named_with_the_directory_searched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*current directory"):
        content_sha256(tmp_path / "nowhere")


def test_a_durable_write_replaces_and_leaves_nothing_aside(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", "old")
    write_durably(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "new"
