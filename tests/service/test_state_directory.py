"""What is under its own name is whole and on the disk, whatever happens and whenever it happens."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.errors import InputError, LockedError
from service import state_directory
from service.errors import NotReady, NotStored
from service.state_directory import StateDirectory

pytestmark = pytest.mark.usefixtures("let_go")

STEPS = ["write aside", "sync file", "rename", "sync directory"]


class Crash(BaseException):
    """The process ends here."""


class Disk:
    """Stands before the four steps of a write: notes them, and fails before or after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.failing: tuple[str, str] | None = None
        self.error: BaseException = Crash()
        write, fsync, replace, sync = state_directory._write_aside, os.fsync, Path.replace, state_directory.sync
        monkeypatch.setattr(state_directory, "_write_aside", lambda *args: self.step("write aside", write, *args))
        monkeypatch.setattr(os, "fsync", lambda handle: self.step("sync file", fsync, handle))
        monkeypatch.setattr(Path, "replace", lambda *args: self.step("rename", replace, *args))
        monkeypatch.setattr(state_directory, "sync", lambda path: self.step("sync directory", sync, path))

    def step(self, name, do, *args):
        if name == "sync file" and STEPS[-1] in self.done[-1:]:
            return do(*args)  # the directory's own
        if self.failing == (name, "before"):
            raise self.error
        self.done.append(name)
        result = do(*args)
        if self.failing == (name, "after"):
            raise self.error
        return result


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def content_after_restart(path: Path, directory: StateDirectory) -> bytes | None:
    directory._lock.close()  # as the end of the process does
    again = StateDirectory.open(path)
    try:
        assert [file.name for file in path.iterdir() if file.name.endswith(".partial")] == []
        return again.read("x")
    finally:
        again.close()


def test_what_was_written_is_read_also_by_the_next_process(tmp_path):
    path = tmp_path / "new" / "state"
    directory = StateDirectory.open(path)
    assert directory.read("x") is None
    for content in (b"one", b"", b"three" * 1_000):
        directory.write("x", content)
        assert directory.read("x") == content
    assert content_after_restart(path, directory) == b"three" * 1_000


def test_a_write_syncs_the_file_then_renames_then_syncs_the_directory(tmp_path, disk):
    directory = StateDirectory.open(tmp_path)
    directory.write("x", b"one")
    assert disk.done == STEPS


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_the_old_or_the_new(tmp_path, disk, step, when, before):
    directory = StateDirectory.open(tmp_path)
    if before is not None:
        directory.write("x", before)
    disk.failing = (step, when)
    with pytest.raises(Crash):
        directory.write("x", b"new")
    disk.failing = None
    renamed = (step, when) in [("rename", "after"), ("sync directory", "before"), ("sync directory", "after")]
    assert content_after_restart(tmp_path, directory) == (b"new" if renamed else before)


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_changes_nothing(tmp_path, disk, step, when, before, number):
    directory = StateDirectory.open(tmp_path)
    if before is not None:
        directory.write("x", before)
    disk.failing, disk.error = (step, when), OSError(number, os.strerror(number))
    with pytest.raises(NotStored, match=f"x cannot be written: {os.strerror(number)}"):
        directory.write("x", b"new")
    disk.failing = None
    assert not list(tmp_path.glob("*.partial")), "what is left of it takes the room that is missing"
    assert directory.read("x") == before
    assert content_after_restart(tmp_path, directory) == before


def test_a_file_that_cannot_be_read_is_never_taken_for_none(tmp_path, monkeypatch):
    directory = StateDirectory.open(tmp_path)
    directory.write("x", b"old")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(NotStored):
            directory.write("x", b"new")
        with pytest.raises(InputError, match="I/O error"):
            directory.read("x")
    assert directory.read("x") == b"old"


@pytest.mark.system
def test_a_second_process_is_told_so_until_the_first_has_gone(tmp_path):
    program = (
        "import sys; from pathlib import Path; from service.state_directory import StateDirectory; "
        "held = StateDirectory.open(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match="held by another service") as caught:
            StateDirectory.open(tmp_path)
        assert caught.value.exit_code == 75
        first.kill()
        first.wait()
    StateDirectory.open(tmp_path).close()


def test_one_process_does_not_open_it_twice_either(tmp_path):
    directory = StateDirectory.open(tmp_path)
    with pytest.raises(LockedError):
        StateDirectory.open(tmp_path)
    directory.close()
    StateDirectory.open(tmp_path).close()


def test_nothing_is_written_after_it_was_let_go(tmp_path):
    directory = StateDirectory.open(tmp_path)
    directory.close()
    other = StateDirectory.open(tmp_path)
    with pytest.raises(NotReady):
        directory.write("x", b"late")
    assert other.read("x") is None
    other.close()


def test_a_place_that_is_no_directory_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"the state directory cannot be used: .*GENREC_STATE_DIR"):
            StateDirectory.open(path)
