"""The report of a stage: facts as JSON for programs, the same as Markdown for people.

Knows how facts are laid out. Knows nothing of what they mean.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_report(directory: Path, title: str, facts: Mapping[str, object], notes: Sequence[str] = ()) -> None:
    """Write ``report.json`` and ``report.md``.

    Args:
        directory: Of the stage.
        title: Heading.
        facts: Single values; mappings, shown as tables of two columns; lists of mappings, shown as tables.
        notes: Sentences shown first; in the JSON under ``notes``.
    """
    document = {**facts, "notes": list(notes)}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    single = {name: value for name, value in facts.items() if not isinstance(value, Mapping | list | tuple)}
    parts = [f"# {title}", "\n".join(f"- {note}" for note in notes), _pairs(single)]
    for name, value in facts.items():
        if isinstance(value, Mapping):
            parts += [f"## {_words(name)}", _pairs(value)]
        elif isinstance(value, list | tuple):
            parts += [f"## {_words(name)}", _rows(value)]
    (directory / "report.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _pairs(facts: Mapping[str, object]) -> str:
    return _table(["", ""], [[_words(name), _cell(value)] for name, value in facts.items()])


def _rows(values: Sequence[object]) -> str:
    rows = [value for value in values if isinstance(value, Mapping)]
    if not rows:
        return "\n".join(f"- {_cell(value)}" for value in values)
    names = list(rows[0])
    return _table([_words(name) for name in names], [[_cell(row.get(name, "")) for name in names] for row in rows])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> str:
    """A value as text that cannot break a Markdown table."""
    return " ".join(_plain(value).replace("|", "\\|").split())


def _plain(value: object) -> str:
    match value:
        case bool() | None:
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return "; ".join(map(_plain, value))
    return str(value)
