"""The files of the playground, read once at start: what a browser is given below `/ui`.

A table in memory and no static-file server: names come from the package, so no path of a request ever reaches the disk.
Knows no framework, and holds no data; the pages fetch theirs from the API as any client does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

PREFIX = "/ui"
"""Everything below it is a file of this package."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Nothing from elsewhere, nothing inline: a title that were markup could not run."""

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGES = {"index.html": "", "status.html": "status"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent.

    Attributes:
        etag: a strong validator, quotes included.
    """

    body: bytes
    media_type: str
    etag: str


def read_assets() -> Mapping[str, Asset]:
    """Every file of the playground by its path below `/ui/`; the pages without their suffix."""
    return {
        _PAGES.get(file.name, file.name): _asset(file.name, file.read_bytes())
        for file in files("service").joinpath("ui").iterdir()
        if PurePosixPath(file.name).suffix in _MEDIA_TYPES
    }


def _asset(name: str, body: bytes) -> Asset:
    media_type = _MEDIA_TYPES[PurePosixPath(name).suffix]
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
