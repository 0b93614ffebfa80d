"""Writes the bundles of tests/data/bundles, which stand for all bundles of format version 1 that exist.

They were made once, with the code as it was then, and are not made again: a change that cannot read them, or answers
otherwise, breaks the bundles of everybody. Run it only to make the first bundles of a new format:

    python -m scripts.make_format_1_bundles DIRECTORY
"""

import sys
import tempfile
from pathlib import Path

from genrec.bundle import load_draft, seal
from genrec.golden import GoldenAnswer
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import TinyShape, write_tiny_draft

SHAPES = {
    "format-1-t5": TinyShape("seq2seq", (6, 5, 4), 40, 5, 6, seed=11),
    "format-1-llama": TinyShape("causal", (7, 3, 5, 2), 60, 4, 8, True, seed=12, suffix=True, length_penalty=0.5),
}  # fmt: skip
"""Random weights and items; the seed gives both."""

GOLDEN: list[dict[str, object]] = [
    {"history": ["i1", "i2", "i3"], "k": 5},
    {"history": ["i4"], "k": 8, "exclude_history": False},
    {"history": ["i0", "i5", "i6", "i7", "i8", "i9", "unknown"], "k": 6, "num_beams": 20},
    {"history": ["i3", "i10"], "k": 4, "exclude": ["i11", "i12"], "filter": {"where": {"year": {"gte": 1920}}}},
    {"history": ["i3"], "k": 10, "filter": {"include_ids": ["i20", "i21", "i22"]}},
]


def make(name: str, target: Path) -> None:
    """Write one bundle to `target`/`name`."""
    with tempfile.TemporaryDirectory() as scratch:
        draft = write_tiny_draft(Path(scratch), SHAPES[name])
        recommender = Recommender.of(load_draft(draft), engine="generate")
        answers = recommender.recommend([Request.from_json(fields) for fields in GOLDEN])
        golden = [GoldenAnswer(fields, answer.scored_list) for fields, answer in zip(GOLDEN, answers, strict=True)]
        seal(
            draft,
            target / name,
            extra={
                "golden.jsonl": "".join(answer.to_json() + "\n" for answer in golden),
                "README.md": f"# {name}\n\nRandom weights; see scripts/make_format_1_bundles.py.\n",
                "training/metrics.json": '{"made": "up"}\n',
            },
            golden=recommender.bundle.manifest.golden,
        )


if __name__ == "__main__":
    for bundle in SHAPES:
        make(bundle, Path(sys.argv[1]))
