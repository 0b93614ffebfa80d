"""Where the files of a bundle are, and how bytes reach the disk for good."""

import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from genrec.errors import BundleError, one_line

MANIFEST = "manifest.json"
DRAFT_MANIFEST = "draft.json"
MODEL = "model"
ITEMS = "catalog/items.parquet"
ITEM_TRIE = "catalog/items.marisa"
ID_TRIE = "catalog/ids.marisa"
GOLDEN = "golden.jsonl"
CARD = "README.md"

_HASH_BLOCK = 1 << 20  # bytes read at a time
# Two file systems, one that has no hard links, a file of another user's, too many names already.
_NOT_LINKED = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_LONGEST_NAME_SHOWN = 200


def walk(root: Path) -> Iterator[Path]:
    """Every entry below `root` that is not a plain directory, links included and not followed, in a stable order."""
    waiting = sorted(root.iterdir(), reverse=True)
    while waiting:
        entry = waiting.pop()
        if entry.is_dir() and not entry.is_symlink():
            waiting += sorted(entry.iterdir(), reverse=True)
        else:
            yield entry


def named(name: str) -> str:
    """A file's name as it may stand in a sentence: whatever was found on the disk, short and printable."""
    return name if name.isprintable() and len(name) <= _LONGEST_NAME_SHOWN else ascii(name[:_LONGEST_NAME_SHOWN])


def open_plain(root: Path, name: str) -> io.FileIO:
    """Open a file below `root` to read it. A link in its place is not followed, a pipe not waited for.

    Raises:
        BundleError: it is none, or cannot be opened.
    """
    try:
        handle = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise not_plain(name) from error
        raise unreadable(name, error) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise not_plain(name)
    return io.FileIO(handle)


def not_plain(name: str) -> BundleError:
    """What is said of a link, a device or a directory where a file should be."""
    return BundleError(f"file {named(name)} is a link, a directory or a device; a bundle holds plain files only.")


def unreadable(name: str, error: OSError) -> BundleError:
    """What is said of a file that the system does not give."""
    return BundleError(f"file {named(name)} cannot be read: {one_line(OSError(error.errno, error.strerror))}")


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write a file and wait until it is on the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    sync(file)


def sync_tree(root: Path) -> None:
    """`sync` every file and directory below `root`, and `root`."""
    for path in sorted(root.rglob("*")):
        sync(path)
    sync(root)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Let `target` be the same file as `source`; the same bytes where one file cannot have both names.

    For files that nobody writes to any more: whoever did would write to both.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NOT_LINKED:
            raise
        shutil.copyfile(source, target)


def replace_directory(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`; an old `target` is set aside until the new one stands, then removed."""
    aside = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)  # of a process with this number that was killed while removing it
        target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    sync(target.parent)
    if aside.exists():
        shutil.rmtree(aside)
