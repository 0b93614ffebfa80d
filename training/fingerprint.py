"""Content hashes of files and directories, and files written so that a crash leaves the old or the new one.

Knows nothing of stages. Names and bytes count; times and permissions do not.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from genrec.bundle.layout import sha256_of, sync, write_text
from genrec.errors import DataError


def tree_hashes(directory: Path, without: Sequence[str] = ()) -> dict[str, str]:
    """Relative posix path → sha256 of every file under `directory`, sorted; top-level files in `without` left out."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    names = (path.relative_to(directory).as_posix() for path in files)
    return {name: sha256_of(path) for name, path in zip(names, files, strict=True) if name not in without}


def combined(hashes: Mapping[str, str]) -> str:
    """One sha256 for a mapping of names to hashes."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def content_sha256(path: Path) -> str:
    """Hash of a file, or of a directory's tree.

    Raises:
        DataError: There is nothing at `path`.
    """
    if path.is_dir():
        return combined(tree_hashes(path))
    if not path.is_file():
        raise DataError(f"{path} does not exist; relative paths are read from the current directory, {Path.cwd()}")
    return sha256_of(path)


def write_durably(path: Path, text: str) -> None:
    """Write `text` aside, sync it and rename it to `path`."""
    aside = path.with_name(f".{path.name}.partial")
    write_text(aside, text)
    aside.replace(path)
    sync(path.parent)
