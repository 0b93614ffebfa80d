"""What a batch scoring job computes: everything that the bytes of its output depend on, as a file in the output.

Knows neither rows nor parts.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrec.errors import InputError

JOB = "_JOB.json"

Job = Mapping[str, str | int | bool | None]
"""By name: the input's hash, what is asked, the bundle, and what the last digits of scores depend on."""


def key_of(job: Job) -> str:
    """The job as a hash."""
    return hashlib.sha256(to_json(job)).hexdigest()


def differences(there: Job, job: Job) -> str:
    """What another job is, in the words of this one; empty if it is the same."""
    changed = [name for name in sorted({*job, *there}) if there.get(name) != job.get(name)]
    return "; ".join(f"{name} was {str(there.get(name))[:40]}, is {str(job.get(name))[:40]}" for name in changed)


def check_job(directory: Path, job: Job) -> None:
    """Before a worker begins: it computes what an output directory is to hold, and sees that very directory.

    Raises:
        InputError: it does not.
    """
    there = read_json(directory / JOB)
    if there is None:
        raise InputError(f"{directory / JOB} cannot be read by a worker; all of them must see one file system.")
    if differ := differences(there, job):
        raise InputError(f"a worker would not compute what {directory} holds: {differ}. Let all workers be alike.")


def to_json(value: Mapping[str, Any]) -> bytes:
    """The same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no file, or another thing in it."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
