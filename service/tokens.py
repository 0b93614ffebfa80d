"""Secrets that open a door: read from a file, kept as hashes, compared in constant time."""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from genrec.errors import InputError

MIN_CHARS = 16
_TOKEN = re.compile(rf"[\x21-\x7e]{{{MIN_CHARS},1024}}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that are all as good: two of them while one takes the other's place.

    Attributes:
        digests: of each, SHA-256. No token of `MIN_CHARS` random characters can be found from it.
    """

    digests: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def read(cls, file: Path) -> Self:
        """The tokens of a file, one a line; empty lines are skipped.

        Raises:
            InputError: the file cannot be read, holds none, or one that is too short or no header's.
        """
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"the token file {file} cannot be read: {reason}.") from error
        for number, line in enumerate(lines, start=1):
            if line and not _TOKEN.fullmatch(line):
                raise InputError(
                    f"line {number} of the token file {file} is no token: it takes {MIN_CHARS} to 1024 visible ASCII "
                    "characters without spaces, such as `openssl rand -hex 32` gives."
                )
        if not any(lines):
            raise InputError(f"the token file {file} is empty; write a token into it, e.g. of `openssl rand -hex 32`.")
        return cls(tuple(_digest(line.encode()) for line in lines if line))

    def accept(self, presented: bytes) -> bool:
        """Whether `presented` is one of them, in a time that does not depend on which or how nearly."""
        digest = _digest(presented)
        return sum(hmac.compare_digest(digest, known) for known in self.digests) > 0  # all are compared


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
