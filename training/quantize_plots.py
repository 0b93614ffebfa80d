"""Pictures of semantic IDs: how far codes are used, how items spread over first codes, who shares them.

Knows numbers, not where they come from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

PLOTS = "plots"
_STRONG, _PALE, _OTHER, _OTHER_PALE = "#2c6fbb", "#b8cfe6", "#c0562f", "#e6c3b4"


def draw(
    directory: Path,
    levels: Sequence[Mapping[str, float]],
    first_codes: npt.NDArray[np.int64],
    sharing: Sequence[Mapping[str, float]],
) -> list[dict[str, str]]:
    """Write the pictures into ``plots/`` of a directory.

    Args:
        directory: Of the stage.
        levels: Rows of `level_health`.
        first_codes: (size,) items of each code of level 0.
        sharing: Rows of `quantize_neighbours.sharing`; none, no picture of them.

    Returns:
        ``file`` (relative to the directory) and ``caption`` of each.
    """
    (directory / PLOTS).mkdir(exist_ok=True)
    drawn = {
        "codes_used": (
            _levels(levels),
            "Codes in use, and how evenly: shares of what so many items can reach. A level well below 1 has collapsed "
            "or is too large.",
        ),
        "first_code": (
            _first_codes(first_codes),
            "Items of each code of level 0, the fullest first. A steep curve means that a few codes have most items.",
        ),
    }
    if sharing:
        drawn["shared_prefixes"] = (
            _sharing(sharing),
            "Pairs of items that have their first codes in common: nearest neighbours by vector and items that follow "
            "each other in histories, each beside the same items paired by chance.",
        )
    for name, (figure, _) in drawn.items():
        for axes in figure.get_axes():
            axes.spines[["top", "right"]].set_visible(False)
        # no creation date in the file, so that an equal run gives equal bytes
        figure.savefig(directory / PLOTS / f"{name}.png", format="png", metadata={"Software": None})
    return [{"file": f"{PLOTS}/{name}.png", "caption": caption} for name, (_, caption) in drawn.items()]


def _levels(levels: Sequence[Mapping[str, float]]) -> Figure:
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(levels))
    for shift, key, colour in ((-0.2, "utilisation", _STRONG), (0.2, "entropy_share", _PALE)):
        values = [row[key] for row in levels]
        axes.bar(places + shift, values, 0.38, color=colour, label=key.replace("_", " "))
    axes.set_xticks(places, [f"level {row['level']}\n{row['codes_used']} of {row['size']}" for row in levels])
    axes.set(ylim=(0, 1.05), ylabel="share")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    return figure


def _first_codes(counts: npt.NDArray[np.int64]) -> Figure:
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    ordered = np.sort(counts)[::-1]
    axes.fill_between(np.arange(len(ordered)), ordered, step="mid", color=_STRONG)
    axes.axhline(float(counts.mean()), color=_OTHER, linewidth=1, label=f"equal shares: {counts.mean():.1f}")
    axes.set(xlabel="codes of level 0, fullest first", ylabel="items", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure


def _sharing(rows: Sequence[Mapping[str, float]]) -> Figure:
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    colours = {"nearest": _STRONG, "nearest_by_chance": _PALE, "following": _OTHER, "following_by_chance": _OTHER_PALE}
    kinds = [kind for kind in colours if kind in rows[0]]
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        places = np.arange(len(rows)) + (number - (len(kinds) - 1) / 2) * width
        axes.bar(places, [row[kind] for row in rows], width, color=colours[kind], label=kind.replace("_", " "))
    axes.set_xticks(np.arange(len(rows)), [f"first {row['first_codes']}" for row in rows])
    axes.set(xlabel="codes in common", ylabel="share of pairs")
    axes.legend(frameon=False, fontsize=8)
    return figure
