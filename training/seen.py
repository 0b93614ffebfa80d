"""What a bundle was trained on to the last interaction, and so must never be measured on.

A refitted bundle has seen the test interactions of its data; whatever goes on from it has too. Its provenance says
until when, and whoever asks a bundle about held-out interactions asks here first. Knows times and provenance.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from genrec.bundle import Manifest
from genrec.bundle.manifest import read_sealed_manifest
from genrec.errors import InputError
from training.recipe import Recipe
from training.sequences import Sequences

SEEN_UNTIL: Final = "seen_until_ms"
"""The key of provenance: time of the newest interaction of data that were trained on whole."""

REFIT: Final = "refit"
"""The key of metrics.json that says which other bundle they are of; also a refit's place in the work directory."""


def seen_until(manifest: Manifest) -> int | None:
    """Until when all interactions were trained on, in milliseconds; None where test was always held out."""
    value = manifest.provenance.get(SEEN_UNTIL)
    return None if value is None else int(value)


def base_seen_until(recipe: Recipe) -> int | None:
    """The same of the bundle that a recipe goes on from.

    Raises:
        BundleError: It is no sealed bundle.
    """
    return None if recipe.base is None else seen_until(read_sealed_manifest(Path(recipe.base.bundle)))


def check_unseen(manifest: Manifest, sequences: Sequences) -> None:
    """Refuse to measure a bundle on what it was trained on.

    Raises:
        InputError: A held-out interaction is no newer than what the bundle has seen.
    """
    until = seen_until(manifest)
    if until is None:
        return
    oldest = _oldest_held_out(sequences)
    if oldest is not None and oldest <= until:
        raise InputError(
            f"bundle {manifest.name} {manifest.version} was trained on all interactions until {instant(until)}, test "
            "included: to measure it on them would be no result. Its metrics.json has those of the run before; to "
            "measure it anew, give prepared data whose validation and test are later."
        )


def instant(milliseconds: int) -> str:
    """ISO 8601 of a time, as the number itself beyond what a calendar holds."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)).isoformat(timespec="seconds")
    except OverflowError:
        return f"{milliseconds} ms"


def _oldest_held_out(sequences: Sequences) -> int | None:
    steps = np.zeros(len(sequences.items) + 1, dtype=np.int64)
    np.add.at(steps, sequences.validation_starts, 1)
    np.subtract.at(steps, sequences.starts[1:], 1)
    held_out = np.cumsum(steps[:-1]) > 0
    return int(sequences.times[held_out].min()) if held_out.any() else None
