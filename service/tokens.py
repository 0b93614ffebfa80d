"""Secrets that open a door: read from a file, kept as hashes, compared in constant time, renewed with it."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog

from genrec.errors import InputError

log = structlog.stdlib.get_logger(__name__)

MIN_CHARS = 16
_TOKEN = re.compile(rf"[\x21-\x7e]{{{MIN_CHARS},1024}}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that are all as good: two of them while one takes the other's place.

    Attributes:
        digests: of each, SHA-256. No token of `MIN_CHARS` random characters can be found from it.
        labels: what the log calls each, "" for one without a label.
    """

    digests: tuple[bytes, ...] = field(repr=False)
    labels: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Self:
        """The tokens of a file, one a line, with a label and a space before it or without; empty lines are skipped.

        Raises:
            InputError: the file cannot be read, holds none, or one that is too short or no header's.
        """
        try:
            lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"the token file {file} cannot be read: {reason}.") from error
        for number, parts in enumerate(lines, start=1):
            if parts and not (_TOKEN.fullmatch(parts[-1]) and _are_labels(parts[:-1])):
                raise InputError(
                    f"line {number} of the token file {file} is no token: it takes {MIN_CHARS} to 1024 visible ASCII "
                    "characters without spaces, such as `openssl rand -hex 32` gives, alone or after a label."
                )
        lines = [parts for parts in lines if parts]
        if not lines:
            raise InputError(f"the token file {file} is empty; write a token into it, e.g. of `openssl rand -hex 32`.")
        return cls(
            tuple(_digest(parts[-1].encode()) for parts in lines),
            tuple(parts[0] if len(parts) == 2 else "" for parts in lines),
        )

    def label_of(self, presented: bytes) -> str | None:
        """The label of the token that `presented` is, None if it is none of them.

        In a time that does not depend on which or how nearly.
        """
        digest = _digest(presented)
        right = [hmac.compare_digest(digest, known) for known in self.digests]  # all are compared
        return self.labels[right.index(True)] if any(right) else None

    def accept(self, presented: bytes) -> bool:
        """Whether `presented` is one of them."""
        return self.label_of(presented) is not None


class TokenFile:
    """Tokens that are always those of a file, but for a file that is damaged: then those it had before."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            InputError: as `Tokens.read`.
        """
        self.file = file
        self._seen = _identity(file)
        self.tokens = Tokens.read(file)

    def refresh(self) -> None:
        """Read the file again if it is another than at the last look. Blocks on the disk."""
        seen = _identity(self.file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.tokens = Tokens.read(self.file)
        except InputError as error:
            log.error("the token file is refused, its former tokens stay", reason=str(error))
        else:
            log.info("tokens read again", file=str(self.file), tokens=len(self.tokens.digests))


def _are_labels(parts: Iterable[str]) -> bool:
    labels = list(parts)
    return len(labels) <= 1 and all(_LABEL.fullmatch(label) for label in labels)


def _identity(file: Path) -> tuple[int, ...] | None:
    """What differs after any change of a file, None while there is none. A mounted secret is a link to another file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
