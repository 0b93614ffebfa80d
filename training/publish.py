"""Putting the result of the last stage where the user wants it: whole or not at all.

Knows directories. Knows nothing of bundles.
"""

import shutil
from pathlib import Path

from genrec.errors import InputError
from training.fingerprint import sync_directory, sync_tree
from training.pipeline import RECORD


def check_destination(destination: Path, replace: bool) -> None:
    """Refuse a destination that is taken, before hours of training rather than after.

    Raises:
        InputError: Something is there and `replace` is not set, or it is no directory.
    """
    if destination.is_dir() and not replace:
        raise InputError(f"{destination} exists; give another --output, or --replace to put the new one in its place")
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination} is a file; --output names a directory")


def publish(source: Path, destination: Path, replace: bool = False) -> None:
    """Copy a stage's directory, without its ``stage.json``, to `destination`.

    What stood there is set aside until the new one is in place, then removed.

    Raises:
        InputError: As `check_destination`.
    """
    check_destination(destination, replace)
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = destination.with_name(f".{destination.name}.partial")
    old = destination.with_name(f".{destination.name}.old")
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, aside, ignore=lambda folder, _: [RECORD] if Path(folder) == source else [])
    sync_tree(aside)
    if destination.exists():
        destination.rename(old)
    aside.rename(destination)
    sync_directory(destination.parent)
    shutil.rmtree(old, ignore_errors=True)
