"""Which bundle is current, as a file: by name, so that a service that starts again serves what it served."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Self

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """The bundles of a service by their names.

    Attributes:
        configured: the one that the settings named when the others were chosen. Where the settings name another by now
            they were changed later, and win.
        current: the one to serve.
        previous: what a rollback goes back to; None before the first reload.
    """

    configured: str
    current: str
    previous: str | None = None

    @classmethod
    def of(cls, configured: str) -> Self:
        """That of a service that was never told anything but its settings."""
        return cls(configured, configured)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a file.

        Raises:
            ValueError, TypeError, KeyError: it is damaged, or of a version this code does not read.
        """
        facts = json.loads(content)
        if not isinstance(facts, dict):
            raise ValueError("it holds no object")
        if (found := facts.pop("format_version")) != FORMAT_VERSION:
            raise ValueError(f"it has format version {found}, this code reads {FORMAT_VERSION}")
        record = cls(**facts)
        names = [record.configured, record.current, *([] if record.previous is None else [record.previous])]
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError("a name in it is not a name")
        return record

    def to_bytes(self) -> bytes:
        """The whole file."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}).encode() + b"\n"

    def moved_to(self, name: str) -> Self:
        """That of a service which serves `name` from now on."""
        return replace(self, current=name, previous=self.previous if name == self.current else self.current)
