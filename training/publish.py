"""Putting a sealed bundle where the user wants it: whole or not at all.

The bundle stays in the work directory as the result of its last stage; this copies it. Knows nothing of stages.
"""

import os
import shutil
from pathlib import Path

from genrec.bundle import layout
from genrec.errors import InputError


def check_destination(
    destination: Path, sealed: Path, *, replace: bool, base: Path | None = None, work: Path | None = None
) -> None:
    """Refuse a destination that is taken, before hours of training rather than after.

    A bundle that is the one in the work directory is no obstacle: then there may be nothing to do.

    Args:
        destination: Where the bundle is to go.
        sealed: Where the run leaves it.
        replace: Whether another bundle may be replaced.
        base: The bundle that the run goes on from, which must outlive it.
        work: The directory that the run writes in.

    Raises:
        InputError: something else is there and may not be replaced, or the base bundle would be written over.
    """
    if base is not None and work is not None and base.resolve().is_relative_to(work.resolve()):
        raise InputError(
            f"{base} lies in {work}, which the run writes over; copy it elsewhere, or give another --work."
        )
    if base is not None and base.resolve() == destination.resolve():
        raise InputError(
            f"{destination} is the bundle that the run goes on from; give the new one a place of its own, so that "
            "there is a way back."
        )
    if not destination.exists():
        return
    if not (destination / layout.MANIFEST).is_file():
        raise InputError(f"{destination} exists and is not a bundle; choose another --output.")
    if not replace and not _same(sealed, destination):
        raise InputError(f"{destination} holds another bundle; add --replace to put the new one in its place.")


def publish(sealed: Path, destination: Path, *, replace: bool) -> bool:
    """Copy a sealed bundle to `destination`; what stood there is set aside until the new one is complete.

    Returns:
        False if the same bundle stood there already.

    Raises:
        InputError: as `check_destination`.
    """
    if destination.exists() and _same(sealed, destination):
        return False
    check_destination(destination, sealed, replace=replace)
    destination.parent.mkdir(parents=True, exist_ok=True)
    beside = destination.with_name(f".{destination.name}.partial-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(sealed, beside)
        layout.sync_tree(beside)
        layout.replace_directory(beside, destination)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def _same(one: Path, other: Path) -> bool:
    manifests = [path / layout.MANIFEST for path in (one, other)]
    return all(file.is_file() for file in manifests) and manifests[0].read_bytes() == manifests[1].read_bytes()
