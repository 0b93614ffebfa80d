"""Where the files of a bundle are, and how bytes reach the disk for good."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
DRAFT_MANIFEST = "draft.json"
MODEL = "model"
ITEMS = "catalog/items.parquet"
ITEM_TRIE = "catalog/items.marisa"
ID_TRIE = "catalog/ids.marisa"
GOLDEN = "golden.jsonl"
CARD = "README.md"

_HASH_BLOCK = 1 << 20  # bytes read at a time


def walk(root: Path) -> Iterator[Path]:
    """Every entry below `root` that is not a plain directory, links included and not followed, in a stable order."""
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from walk(entry)
        else:
            yield entry


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
