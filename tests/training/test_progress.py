import io

import pytest
from rich.console import Console

from training.progress import PLAIN_INTERVAL_S, PlainProgress, RichProgress, SilentProgress, open_progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_intervals_with_rate_time_left_and_note() -> None:
    lines: list[str] = []
    clock = Clock()
    with PlainProgress(lines.append, clock).task("fitting", total=100) as advance:
        advance(10)
        assert lines == []
        clock.now = PLAIN_INTERVAL_S
        advance(10, note="loss 2.1")
        assert lines == ["fitting  20/100  2.0/s  loss 2.1  10.0 s  about 40 s left"]
        clock.now = 20.0
        advance(80)
    assert lines[-1].startswith("fitting  100/100")
    assert lines[-1].endswith("done")


def test_a_task_of_unknown_length_has_no_time_left() -> None:
    lines: list[str] = []
    clock = Clock()
    with PlainProgress(lines.append, clock).task("reading") as advance:
        clock.now = PLAIN_INTERVAL_S
        advance(5)
    assert lines[0] == "reading  5  0.5/s  10.0 s"


def test_a_failed_task_is_not_called_done() -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match="broken"), PlainProgress(lines.append).task("fitting"):
        raise ValueError("broken")
    assert lines == []


def test_a_terminal_gets_bars_and_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with open_progress(terminal) as progress:
        assert isinstance(progress, RichProgress)
        with progress.task("fitting", total=2) as advance:
            advance(note="loss 2.1")
            advance()
        progress.say("kept [bold]as it is")
    assert "kept [bold]as it is" in terminal.file.getvalue()  # type: ignore[attr-defined]
    pipe = Console(file=io.StringIO(), force_terminal=False)
    with open_progress(pipe) as progress:
        progress.say("a line")
    assert pipe.file.getvalue() == "a line\n"  # type: ignore[attr-defined]


def test_every_rank_but_the_first_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    console = Console(file=io.StringIO())
    with open_progress(console) as progress:
        assert isinstance(progress, SilentProgress)
        progress.say("nothing")
        with progress.task("nothing") as advance:
            advance(3, note="x")
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
