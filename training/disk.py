"""A full disk, told as one: each library that writes has an error of its own for it. Knows nothing of stages."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genrec.errors import DiskError, GenrecError

_FULL = {errno.ENOSPC: "it is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "a file would be too large"}
_PROBE_BYTES = 1 << 20


@contextmanager
def full_disk_told(directory: Path, label: str) -> Iterator[None]:
    """Inside the block, a failure to write below `directory` because there is no room is one sentence.

    Raises:
        DiskError: there is no room. Any other error passes as it is.
    """
    try:
        yield
    except GenrecError:
        raise
    except Exception as error:  # whichever library wrote: torch, safetensors, Arrow and polars each raise their own
        there = next(path for path in (directory, *directory.resolve().parents) if path.is_dir())
        reason = _reason(error) or _asked(there)
        if reason is None:
            raise
        free = shutil.disk_usage(there).free / 2**20
        raise DiskError(
            f"{label}: nothing more can be written to {directory}: {reason} ({free:,.0f} MB free). Make room and start "
            "the same command again; finished stages and checkpoints are kept."
        ) from error


def _reason(error: BaseException | None) -> str | None:
    """Why there is no room, if the error or what it came from says so."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        for code, reason in _FULL.items():
            if number == code or os.strerror(code) in str(error):
                return reason
        error = error.__cause__ or error.__context__
    return None


def _asked(directory: Path) -> str | None:
    """Why there is no room, if the disk itself says so: PyTorch's writer only says that it failed."""
    probe = directory / ".probe"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        return _FULL.get(error.errno or 0)
    finally:
        probe.unlink(missing_ok=True)
    return None
