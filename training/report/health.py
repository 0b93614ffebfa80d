"""Pictures of the semantic IDs, as the stage `quantize` left them. Knows where they are and what they are called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def semantic_id_pictures(directory: Path, report: Mapping[str, Any]) -> dict[Path, str]:
    """The PNGs that the report of the stage lists under ``plots``, with their captions; those that are gone are not."""
    listed = {directory / picture["file"]: str(picture["caption"]) for picture in report.get("plots", [])}
    return {file: caption for file, caption in listed.items() if file.is_file()}
