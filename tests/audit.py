"""What Python itself reports of a piece of code: files opened, sockets connected, pickles resolved, processes started.

An audit hook cannot be removed, so there is one, and it is deaf unless somebody listens.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heard:
    """The events of a block of code, with their arguments."""

    events: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)

    def of(self, *prefixes: str) -> list[tuple[str, tuple[object, ...]]]:
        return [(name, arguments) for name, arguments in self.events if name.startswith(prefixes)]

    @property
    def paths(self) -> list[str]:
        """Files opened and directories listed, by path."""
        found = self.of("open", "os.listdir", "os.scandir")
        return [os.fsdecode(one[0]) for _, one in found if one and isinstance(one[0], str | bytes | os.PathLike)]


_listening: list[Heard] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    for heard in _listening:
        heard.events.append((event, arguments))


sys.addaudithook(_hook)


@contextmanager
def listening() -> Iterator[Heard]:
    """All events of the process until the block ends."""
    heard = Heard()
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)
