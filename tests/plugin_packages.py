"""Packages outside this repository that bring a model family, installed as `pip` leaves them."""

import re
import tomllib
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/models.md"


def install(folder: Path, module: str, code: str, points: dict[str, str], version: str = "1.0") -> Path:
    """Write a package into a folder that is, or will be, on the module path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[genrec.models]\n{lines}\n", encoding="utf-8")
    return folder


def install_page(folder: Path) -> Path:
    """The package of docs/models.md, as it stands there."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    project = tomllib.loads(blocks["pyproject.toml"])["project"]
    return install(
        folder,
        project["name"],
        blocks[f"{project['name']}.py"],
        project["entry-points"]["genrec.models"],
        project["version"],
    )
