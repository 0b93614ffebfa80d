from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from training.quantize_health import level_health
from training.quantize_plots import draw

LEVELS = level_health(np.array([[0, 1], [1, 1], [1, 0]], dtype=np.int32), (4, 2))
SHARING = [{"first_codes": 1, "nearest": 0.5, "nearest_by_chance": 0.1}, {"first_codes": 2, "nearest": 0.1}]


def test_every_picture_is_a_file_with_a_caption_and_the_same_bytes_again(tmp_path: Path) -> None:
    rows = [{**row, "nearest_by_chance": 0.05} for row in SHARING]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        drawn = draw(tmp_path / name, LEVELS, np.array([2, 1]), rows)
    assert [Path(plot["file"]).stem for plot in drawn] == ["codes_used", "first_code", "shared_prefixes"]
    for plot in drawn:
        content = (tmp_path / "one" / plot["file"]).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content == (tmp_path / "two" / plot["file"]).read_bytes()
        assert plot["caption"].endswith(".")


def test_bars_are_as_high_as_the_figures_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    draw(tmp_path, LEVELS, np.array([2, 1]), [])
    assert len(figures) == 2  # nothing to say of pairs
    heights = [bar.get_height() for bar in figures[0].axes[0].patches]
    assert heights == [row[key] for key in ("utilisation", "entropy_share") for row in LEVELS]
