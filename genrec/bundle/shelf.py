"""A directory of bundles, each called by the name of its directory: what may be asked for from outside.

A name is never a path. Knows manifests; nothing else of a bundle is read here.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from genrec.bundle import layout
from genrec.bundle.manifest import NAME_PATTERN, Manifest, read_sealed_manifest
from genrec.errors import BundleError, InputError, one_line

MAX_LISTED = 1_000
"""Directories in a listing; the first by name."""

MAX_SCANNED = 20_000
"""Entries that are looked at to find them."""

MAX_MANIFEST_BYTES = 64 << 20
"""Of all manifests that are read for one listing."""

_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Shelved:
    """A directory on the shelf.

    Attributes:
        name: of the directory; what `Shelf.find` takes.
        manifest: of the bundle in it, None if it is none that could be loaded.
        reason: why not, one sentence without paths.
    """

    name: str
    manifest: Manifest | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What is on the shelf, by name; `complete` unless there is more than a listing holds."""

    bundles: Sequence[Shelved]
    complete: bool


@dataclass(frozen=True, slots=True)
class Shelf:
    """A directory of bundles.

    Attributes:
        root: where it is. The operator chose it; it may be a link. What lies in it may not.
    """

    root: Path

    def find(self, name: str) -> Path:
        """The directory of a sealed bundle.

        It was one when it was looked at; only loading it tells whether it is whole.

        Raises:
            InputError: that is not the name of a bundle. The sentence does not repeat it.
            BundleError: there is no bundle of that name.
        """
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise InputError(
                "a bundle is called by its name: 1 to 64 letters, digits, dots, dashes and underscores, the first a "
                "letter or a digit."
            )
        reason = self._why_none(name)
        if reason is not None:
            raise BundleError(f"{name}: {reason}")
        return self.root / name

    def listing(self) -> Listing:
        """All bundles, and all directories that look like one but are none, with the reason. Reads manifests only.

        Raises:
            InputError: the directory cannot be read.
        """
        try:
            with os.scandir(self.root) as entries:
                scanned = list(islice(entries, MAX_SCANNED + 1))
                names = sorted(entry.name for entry in scanned if _is_listed(entry))
        except OSError as error:
            raise InputError(f"the directory of bundles cannot be read: {one_line(error)}") from error
        left = MAX_MANIFEST_BYTES
        bundles = []
        for name in names[:MAX_LISTED]:
            shelved, size = self._look_at(name, left)
            bundles.append(shelved)
            left -= size
        return Listing(tuple(bundles), len(scanned) <= MAX_SCANNED and len(names) <= MAX_LISTED)

    def _look_at(self, name: str, left: int) -> tuple[Shelved, int]:
        """One directory, and how many bytes were read of it."""
        reason = self._why_none(name)
        if reason is not None:
            return Shelved(name, None, reason), 0
        try:
            size = (self.root / name / layout.MANIFEST).lstat().st_size
            if size > left:
                return Shelved(name, None, f"{layout.MANIFEST} is not read: there is too much to list."), 0
            return Shelved(name, read_sealed_manifest(self.root / name)), size
        except OSError as error:
            return Shelved(name, None, str(layout.unreadable(layout.MANIFEST, error))), 0
        except BundleError as error:
            return Shelved(name, None, str(error).replace(str(self.root / name), name)), size

    def _why_none(self, name: str) -> str | None:
        directory = self.root / name
        try:
            mode = directory.lstat().st_mode
            if not stat.S_ISDIR(mode):
                return "is not a directory of its own."
            mode = (directory / layout.MANIFEST).lstat().st_mode
        except FileNotFoundError as error:
            if error.filename == str(directory):
                return "there is no such bundle."
            return f"has no {layout.MANIFEST}, so it is not a (finished) bundle."
        except OSError as error:
            return f"cannot be read: {one_line(OSError(error.errno, error.strerror))}"
        return None if stat.S_ISREG(mode) else f"file {layout.MANIFEST} is a link, a directory or a device."


def _is_listed(entry: "os.DirEntry[str]") -> bool:
    return _NAME.fullmatch(entry.name) is not None and (entry.is_symlink() or entry.is_dir(follow_symlinks=False))
