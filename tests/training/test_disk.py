import errno
import os
from pathlib import Path

import pytest

from genrec.errors import DiskError, InputError
from training.disk import full_disk_told


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "it is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the quota is used up"),
        (OSError(errno.EFBIG, "File too large"), "a file would be too large"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "it is full"),
    ],
)
def test_whatever_a_library_raises_is_one_sentence(tmp_path: Path, error: Exception, reason: str) -> None:
    told = full_disk_told(tmp_path, "finetune")
    with pytest.raises(DiskError, match=f"finetune: nothing more can be written to .*: {reason}") as caught, told:
        raise error
    assert caught.value.exit_code == 74 and caught.value.__cause__ is error


def test_an_error_that_says_nothing_is_asked_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's writer: "PytorchStreamWriter failed writing file data/0: file write failed"."""

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="it is full"), full_disk_told(tmp_path / "not" / "there", "pretrain"):
        raise RuntimeError("file write failed")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.EACCES, "no"), InputError("full of it")]
)
def test_other_errors_pass_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, full_disk_told(tmp_path, "finetune"):
        raise error
    assert caught.value is error
    assert not list(tmp_path.iterdir())
