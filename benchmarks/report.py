"""What every benchmark prints: a table for people, one JSON document for machines, and where it was measured."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "numpy", "pyarrow", "marisa-trie")


def machine() -> dict[str, Any]:
    """Date, hardware and versions, as far as Linux tells them."""
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as aligned text; the columns are the keys of the first one."""
    lines = [list(rows[0]), *([_text(row.get(column)) for column in rows[0]] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def publish(name: str, rows: Sequence[Mapping[str, object]], output: Path, **more: object) -> None:
    """Print the table; write `output`/`name`.json."""
    document = {"benchmark": name, "machine": machine(), "rows": [dict(row) for row in rows], **more}
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"{name}.json"
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"\n{json.dumps(document['machine'])}\n{file}")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
