"""The one progress display: bars with rates and time left on a terminal, plain lines elsewhere, nothing off rank 0.

Knows nothing of stages. Whoever works is handed a `Progress` and never prints.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.text import Text

from training.processes import is_main

PLAIN_INTERVAL_S = 10.0
"""Without a terminal a task prints at most this often: a log of an hour stays readable."""

Advance = Callable[..., None]
"""``advance(steps=1, note="")``: so many steps further; the note, such as a loss, is shown beside the bar."""


class Progress(Protocol):
    """What a stage may tell its user."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def task(self, label: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """A piece of work of `total` steps, or of unknown length; inside the block, call the function it gives."""


class SilentProgress:
    """Says nothing: other ranks, and tests."""

    def say(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda steps=1, note="": None


class PlainProgress:
    """Lines for a log: the start of a task, its state every ten seconds, its end."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock

    def say(self, text: str) -> None:
        """Write the line."""
        self._write(text)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """Write `label` with steps, rate and time left while the block runs."""
        count = _Count(label, total, self._write, self._clock, started=self._clock(), printed=self._clock())
        yield count.advance
        count.print("done")


@dataclass(slots=True)
class _Count:
    label: str
    total: int | None
    write: Callable[[str], None]
    clock: Callable[[], float]
    started: float
    printed: float
    steps: int = 0
    note: str = field(default="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps
        self.note = note or self.note
        if self.clock() - self.printed >= PLAIN_INTERVAL_S:
            self.print(self._remaining())

    def print(self, state: str) -> None:
        self.printed = self.clock()
        elapsed = self.printed - self.started
        steps = f"{self.steps:,}" + (f"/{self.total:,}" if self.total else "")
        rate = f"{self.steps / elapsed:,.1f}/s" if self.steps and elapsed > 0 else ""
        self.write("  ".join(part for part in (self.label, steps, rate, self.note, f"{elapsed:.1f} s", state) if part))

    def _remaining(self) -> str:
        if not self.total or not self.steps:
            return ""
        left = (self.clock() - self.started) * (self.total - self.steps) / self.steps
        return f"about {left:.0f} s left"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


class RichProgress:
    """Bars on a terminal; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print the line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """Show a bar while the block runs."""
        bar = self._bars.add_task(label, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            if note:
                self._bars.update(bar, advance=steps, note=note)
            else:
                self._bars.advance(bar, steps)

        try:
            yield advance
        finally:
            self._bars.remove_task(bar)


@contextmanager
def open_progress(console: Console | None = None) -> Iterator[Progress]:
    """The display that fits: bars on a terminal, lines elsewhere, silence on every rank but 0.

    The bars and warnings of the libraries underneath would tear it apart; what they warn of is checked by the stages.
    """
    silence_libraries()
    console = console or Console(stderr=True)
    if not is_main():
        yield SilentProgress()
    elif console.is_terminal:
        with RichProgress(console) as bars:
            yield bars
    else:
        yield PlainProgress(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


def silence_libraries() -> None:
    """No progress bars and no reports of the libraries underneath."""
    from transformers.utils import logging as transformers_logging  # takes seconds to import, and --help needs none

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # PEFT 0.21 asks transformers 5.23 by an old name; nothing that a user can mend
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
