"""What a bundle says of itself beyond its manifest: how good it was measured to be, and its card.

Both files are optional: a bundle that `genrec import` made has no measurements. Reads files that were verified when the
bundle was loaded, and no more of them than a card needs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from genrec.bundle import Manifest, layout
from service.operations_schemas import Estimate, Evaluation, Measured, ModelCard
from service.schemas import BundleName

log = structlog.stdlib.get_logger(__name__)

METRICS = "training/metrics.json"
MAX_BYTES = 256 * 1024
OURS = "this bundle"
BEFORE_REFIT = "the run before, without test"
"""Whose the metrics of a bundle are that was then trained on all interactions."""


def read_model_card(path: Path, manifest: Manifest) -> ModelCard:
    """The card of the bundle in directory `path`. Files that are absent, or of another form than ours, are left out."""
    return ModelCard(
        bundle=BundleName(name=manifest.name, version=manifest.version),
        provenance=dict(manifest.provenance),
        evaluation=_evaluation(path / METRICS),
        card=_text(path / layout.CARD),
    )


class _Metrics(BaseModel):
    """`training/metrics.json`, as far as it is shown."""

    test: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]] = {}
    users: Mapping[str, int]
    protocol: dict[str, Any] = {}
    coverage: dict[str, int] = {}
    refit: dict[str, Any] | None = None


def _evaluation(file: Path) -> Evaluation | None:
    text = _text(file)
    if text is None:
        return None
    try:
        metrics = _Metrics.model_validate_json(text)
        users = metrics.users["test"]
    except (ValidationError, KeyError) as error:
        log.warning("the bundle's metrics are not of our form", reason=type(error).__name__)
        return None
    methods = {OURS if metrics.refit is None else BEFORE_REFIT: metrics.test, **metrics.baselines}
    return Evaluation(
        users=users,
        methods=[Measured(name=name.replace("_", " "), metrics=reached) for name, reached in methods.items()],
        protocol=metrics.protocol,
        coverage=metrics.coverage,
    )


def _text(file: Path) -> str | None:
    """The text of a file, None where there is none or more than `MAX_BYTES` of it."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
        return text.decode() if len(text) <= MAX_BYTES else None
    except (OSError, UnicodeDecodeError):
        return None
