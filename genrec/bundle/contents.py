"""The files of a bundle, each opened once: the bytes that are hashed are the bytes that everything is made of.

Whatever happens to the directory meanwhile, and afterwards, what comes out of here is what the manifest lists, or
nothing. See docs/decisions/0015-bytes-read-once.md.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from genrec.bundle import layout
from genrec.bundle.manifest import FileFacts, Manifest
from genrec.checkpoint import Checkpoint, is_checkpoint_text
from genrec.errors import BundleError, one_line
from genrec.weights import INDEX, read_header, read_weights, weight_files

# What a bundle may hold. Pickle hides behind .bin, .pt and others, so the list is of what is allowed.
_SUFFIXES = {".json", ".jsonl", ".safetensors", ".parquet", ".marisa", ".md", ".toml", ".html", ".png", ".svg"}
_SUFFIXES |= {".txt", ".model", ".csv"}  # vocabularies of tokenizers, tables of reports

_KEPT = {layout.ITEMS, layout.ITEM_TRIE, layout.ID_TRIE, layout.GOLDEN}
_BLOCK = 1 << 20  # bytes read and hashed at a time: they are still in the processor's cache
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a bundle is made of, in memory.

    Attributes:
        files: name -> bytes, of the catalog and the golden answers.
        checkpoint: config, tokenizer files and weights.
    """

    files: Mapping[str, bytes]
    checkpoint: Checkpoint

    def file(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            BundleError: the bundle has no such file.
        """
        try:
            return self.files[name]
        except KeyError as error:
            raise BundleError(f"file {name} is missing.") from error


class HashedFile:
    """A file that is hashed while it is read, once, from front to end."""

    def __init__(self, file: io.FileIO, name: str) -> None:
        """Nothing is read yet; `name` is for sentences."""
        self._file = file
        self._name = name
        self._digest = hashlib.sha256()
        self.count = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; 0 at the end.

        Raises:
            BundleError: the system does not give it.
        """
        view = buffer[:_BLOCK]
        try:
            count = self._file.readinto(view)
        except OSError as error:
            raise layout.unreadable(self._name, error) from error
        self._digest.update(view[:count])
        self.count += count
        return count

    def finish(self, facts: FileFacts | None) -> None:
        """Read what is left, and hold all of it against what was sealed.

        Raises:
            BundleError: it has other bytes.
        """
        if facts is None:
            return
        rest = memoryview(bytearray(_BLOCK))
        while self.count <= facts.bytes and self.readinto(rest):
            pass
        if self.count != facts.bytes:
            raise BundleError(
                f"file {layout.named(self._name)} has {self.count} bytes or more, but {layout.MANIFEST} lists "
                f"{facts.bytes}: it is damaged."
            )
        if self._digest.hexdigest() != facts.sha256:
            raise BundleError(
                f"file {layout.named(self._name)} has other bytes than when it was sealed (sha256 differs): "
                "it is damaged."
            )


def check_files(root: Path, manifest: Manifest) -> None:
    """Every listed file is there with the listed bytes, and nothing else is.

    Raises:
        BundleError: a file is missing, unlisted, a link, of a kind that is never read, or has other bytes.
        OSError: a directory cannot be read.
    """
    _check_listing(root, manifest)
    for name, facts in manifest.files.items():
        with _hashed(root, name, facts):
            pass


def read_sealed(root: Path, manifest: Manifest) -> Contents:
    """As `check_files`, and what was hashed.

    Raises:
        BundleError: as `check_files`; or a file of weights is none, or not a part of the checkpoint.
        OSError: a directory cannot be read.
    """
    _check_listing(root, manifest)
    return _read(root, manifest.files)


def read_draft(root: Path) -> Contents:
    """The same of a directory that no manifest lists.

    Raises:
        BundleError: a file cannot be read.
        OSError: a directory cannot be read.
    """
    return _read(root, {file.relative_to(root).as_posix(): None for file in layout.walk(root)})


def _read(root: Path, listed: Mapping[str, FileFacts | None]) -> Contents:
    files: dict[str, bytes] = {}
    texts: dict[str, bytes] = {}
    for name, facts in listed.items():
        if name.endswith(_WEIGHTS):
            continue
        in_model = _in_model(name)
        with _hashed(root, name, facts) as file:
            if name in _KEPT:
                files[name] = _content(file, facts)
            elif in_model and is_checkpoint_text(in_model):
                texts[in_model] = _content(file, facts)
    tensors: dict[str, torch.Tensor] = {}
    with _sentence(f"the checkpoint in {layout.MODEL}/ cannot be loaded"):
        parts = weight_files({in_model for name in listed if (in_model := _in_model(name))}, texts.get(INDEX))
    for name, facts in listed.items():
        if name.endswith(_WEIGHTS):
            more = _read_tensors(root, name, facts, wanted=_in_model(name) in parts)
            for twice in sorted(tensors.keys() & more.keys()):
                raise BundleError(f"file {layout.named(name)} holds weight {twice!r}, which another file holds too.")
            tensors |= more
    return Contents(files, Checkpoint(layout.MODEL, texts, tensors))


def _read_tensors(root: Path, name: str, facts: FileFacts | None, *, wanted: bool) -> dict[str, torch.Tensor]:
    if _in_model(name) and not wanted:
        raise BundleError(f"file {layout.named(name)} holds weights that are no part of the checkpoint; remove it.")
    where = f"the checkpoint in {layout.MODEL}/ cannot be loaded: {layout.named(name)}"
    size = (root / name).stat().st_size if facts is None else facts.bytes
    tensors: dict[str, torch.Tensor] = {}
    with _sentence(where if wanted else f"file {layout.named(name)}"), _hashed(root, name, facts) as file:
        if wanted:
            tensors = read_weights(file, size)
        else:
            read_header(file, size)
    return tensors


@contextmanager
def _hashed(root: Path, name: str, facts: FileFacts | None) -> Iterator[HashedFile]:
    """The file, to be read; whatever is made of its bytes, if they are not those that were sealed, that is told."""
    with layout.open_plain(root, name) as plain:
        file = HashedFile(plain, name)
        try:
            yield file
        except ValueError:
            file.finish(facts)
            raise
        file.finish(facts)


@contextmanager
def _sentence(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise BundleError(f"{where}: {one_line(error)}") from error


def _content(file: HashedFile, facts: FileFacts | None) -> bytes:
    """All of it, but no more than was sealed: a file that grows meanwhile does not fill the memory."""
    content = io.BytesIO()
    block = memoryview(bytearray(_BLOCK))
    while (facts is None or file.count <= facts.bytes) and (count := file.readinto(block)):
        content.write(block[:count])
    return content.getvalue()


def _in_model(name: str) -> str | None:
    """The name of a file directly in the checkpoint's directory, else None."""
    path = PurePosixPath(name)
    return path.name if path.parent == PurePosixPath(layout.MODEL) else None


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have
        return False


def _check_listing(root: Path, manifest: Manifest) -> None:
    found = {file.relative_to(root).as_posix(): file for file in layout.walk(root)}
    if found.pop(layout.MANIFEST, root).is_symlink():
        raise layout.not_plain(layout.MANIFEST)
    for name in sorted(manifest.files.keys() - found.keys()):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BundleError(f"{layout.MANIFEST} lists {layout.named(name)}, which is not below the bundle.")
        if _is_directory(root / name):
            raise layout.not_plain(name)
        raise BundleError(f"file {layout.named(name)} is listed in {layout.MANIFEST} but missing.")
    for name in sorted(found.keys() - manifest.files.keys()):
        raise BundleError(
            f"file {layout.named(name)} is not listed in {layout.MANIFEST}; a bundle holds nothing else. Remove it."
        )
    for name, facts in manifest.files.items():
        file = found[name]
        if file.is_symlink() or not file.is_file():
            raise layout.not_plain(name)
        if file.suffix not in _SUFFIXES:
            raise BundleError(
                f"file {layout.named(name)} is of a kind that a bundle never holds (allowed: {sorted(_SUFFIXES)})."
            )
        size = file.stat().st_size
        if size != facts.bytes:
            raise BundleError(
                f"file {layout.named(name)} has {size} bytes, but {layout.MANIFEST} lists {facts.bytes}: it is damaged."
            )
