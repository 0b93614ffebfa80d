"""Golden answers: what the bundle answered when it was sealed, replayed before it may serve.

Hashes show that the bytes are those that were sealed; only an answer shows that weights, tokens, trie and libraries
together still give what was measured. Knows lists of scored items, not who made them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.bundle import Bundle, layout
from genrec.bundle.manifest import Golden
from genrec.decoding.scoring import path_log_probs
from genrec.errors import BundleError, one_line

ScoredList = Sequence[tuple[str, float]]
"""Item ids with their scores, best first."""

MEASURED_MARGIN = 2.0
"""A shorter dtype may stray this many times as far from float32 as it did when the bundle was sealed."""

OVERLAP_SLACK = 0.2
"""How much its lists may overlap less: near-ties swap, and which ones depends on the hardware's kernels."""


@dataclass(frozen=True, slots=True)
class GoldenAnswer:
    """One line of golden.jsonl: a request's fields, and the items with their float32 scores, best first."""

    request: Mapping[str, Any]
    items: ScoredList

    def to_json(self) -> str:
        """One line of JSON."""
        items = [{"item_id": item_id, "score": score} for item_id, score in self.items]
        return json.dumps({"request": dict(self.request), "items": items})

    @classmethod
    def from_json(cls, line: str) -> "GoldenAnswer":
        """Read one line.

        Raises:
            ValueError, TypeError, KeyError: it is not such a line.
        """
        raw: dict[str, Any] = json.loads(line)
        items = tuple((str(item["item_id"]), float(item["score"])) for item in raw["items"])
        if not all(math.isfinite(score) for _, score in items):
            raise ValueError("a score is not finite")
        return cls(dict(raw["request"]), items)


def read_golden(bundle: Bundle) -> list[GoldenAnswer]:
    """The golden answers of a bundle.

    Raises:
        BundleError: the file is missing, malformed, without an item, or names an item that the catalog does not have.
    """
    if bundle.golden is None:
        raise BundleError(f"file {layout.GOLDEN} cannot be read as golden answers: it is missing.")
    try:
        answers = [GoldenAnswer.from_json(line) for line in bundle.golden.decode("utf-8").splitlines() if line]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"file {layout.GOLDEN} cannot be read as golden answers: {one_line(error)}") from error
    if not any(answer.items for answer in answers):
        raise BundleError(f"file {layout.GOLDEN} holds no golden answer, so the bundle cannot prove itself.")
    for item_id in (item_id for answer in answers for item_id, _ in answer.items):
        if bundle.catalog.row(item_id) is None:
            raise BundleError(f"file {layout.GOLDEN} expects item {item_id!r}, which the catalog does not have.")
    return answers


def check_golden(bundle: Bundle, golden: Sequence[GoldenAnswer], found: Sequence[ScoredList]) -> None:
    """Hold what the bundle answers now against its golden answers.

    Raises:
        BundleError: they differ by more than the manifest allows.
    """
    allowed = bundle.manifest.golden
    if bundle.dtype == "float32":
        for line, (expected, items) in enumerate(zip(golden, found, strict=True), start=1):
            _check_list(f"golden answer {line}", expected.items, items, allowed.score_tolerance)
        return
    measured = measure_reduced(bundle, golden, found)
    if not measured.strayed <= allowed.reduced_tolerance or measured.overlap < allowed.reduced_overlap:
        raise BundleError(
            f"golden answers in {bundle.dtype}: scores stray by {measured.strayed:.3g} (allowed "
            f"{allowed.reduced_tolerance:.3g}) and lists overlap by {measured.overlap:.2f} (at least "
            f"{allowed.reduced_overlap:.2f}); serve in float32."
        )


@dataclass(frozen=True, slots=True)
class Reduced:
    """How far a shorter dtype strays: largest score difference of golden items, mean overlap of the lists in [0, 1]."""

    strayed: float
    overlap: float

    @property
    def allowance(self) -> Golden:
        """What to allow it from now on."""
        return Golden(
            reduced_tolerance=max(MEASURED_MARGIN * self.strayed, 0.05),
            reduced_overlap=max(self.overlap - OVERLAP_SLACK, 0.0),
        )


def measure_reduced(bundle: Bundle, golden: Sequence[GoldenAnswer], found: Sequence[ScoredList]) -> Reduced:
    """Rescore the golden items with the bundle as it is loaded, and compare the lists it gives."""
    overlaps = [
        len({item_id for item_id, _ in items} & {item_id for item_id, _ in expected.items}) / len(expected.items)
        for expected, items in zip(golden, found, strict=True)
        if expected.items
    ]
    strayed = max(_largest_difference(bundle, answer) for answer in golden)
    return Reduced(strayed, float(np.mean(overlaps)) if overlaps else 1.0)


def _check_list(where: str, expected: ScoredList, found: ScoredList, tolerance: float) -> None:
    """Lists are equal, or differ only among items whose scores lie within the tolerance of each other."""
    if len(found) != len(expected):
        raise BundleError(f"{where}: {len(found)} items came back instead of {len(expected)}.")
    scores = dict(found)
    for rank, ((item_id, score), (found_id, found_score)) in enumerate(zip(expected, found, strict=True), start=1):
        if abs(found_score - score) > tolerance:
            raise BundleError(f"{where}: the score at rank {rank} is {found_score:.6f} instead of {score:.6f}.")
        if abs(scores.get(item_id, found[-1][1]) - score) > tolerance:
            raise BundleError(f"{where}: item {item_id!r} at rank {rank} came back as {found_id!r}.")


def _largest_difference(bundle: Bundle, expected: GoldenAnswer) -> float:
    if not expected.items:
        return 0.0
    rows_of = bundle.catalog.row
    history = [row for item_id in expected.request["history"] if (row := rows_of(item_id)) is not None]
    prompt = bundle.encoder.encode(history)
    paths = [bundle.encoder.target(row) for item_id, _ in expected.items if (row := rows_of(item_id)) is not None]
    prefix = bundle.manifest.decoder_prefix_ids
    log_probs = path_log_probs(bundle.model, [prompt] * len(paths), paths, prefix, bundle.model_inputs)
    divisor = bundle.manifest.num_levels**bundle.manifest.generation.length_penalty
    scores = log_probs.double().sum(1).cpu().numpy() / divisor
    return float(np.abs(scores - np.array([score for _, score in expected.items])).max())
