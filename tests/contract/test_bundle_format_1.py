"""Bundles of format version 1 that exist go on loading and answering as they did when they were sealed.

The two in tests/data/bundles were made once by scripts/make_format_1_bundles.py. If a test here fails, the code has
changed what a bundle means, and everybody's bundles with it: mend the code, or give the format a new version. Their
files are never changed.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from genrec.bundle import layout
from genrec.bundle.contents import check_files
from genrec.bundle.manifest import Manifest, read_manifest
from genrec.golden import read_golden
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.semantic_id import SemanticId

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "tests" / "data" / "bundles"


@dataclass(frozen=True)
class Pinned:
    """What a bundle is and answers, as it was found on the day it was sealed."""

    name: str
    version: str
    items: list[tuple[str, float]]
    semantic_ids: list[SemanticId]


PINNED = [
    Pinned(
        "format-1-t5",
        "c0bf8dd92dee",
        [
            ("i15", -2.57521), ("i23", -2.58001), ("i3", -2.74956), ("i8", -2.8544), ("i26", -2.86033),
            ("i9", -2.89675),
        ],
        [(1, 0, 0), (5, 0, 0), (1, 0, 2), (1, 0, 3), (5, 0, 1), (1, 4, 3)],
    ),
    Pinned(
        "format-1-llama",
        "16533f2e1aab",
        [
            ("i45", -4.79229), ("i22", -5.07869), ("i8", -5.09162), ("i55", -5.91012), ("i18", -6.34601),
            ("i11", -6.50525),
        ],
        [(2, 2, 2, 1), (2, 2, 2, 0), (2, 2, 1, 1), (6, 0, 1, 0), (2, 0, 1, 0), (6, 0, 1, 1)],
    ),
]  # fmt: skip


@pytest.fixture(params=PINNED, ids=lambda pinned: pinned.name)
def pinned(request: pytest.FixtureRequest) -> Pinned:
    return request.param


def test_the_manifest_is_read_and_states_the_version_it_had(pinned: Pinned) -> None:
    manifest = read_manifest(BUNDLES / pinned.name / layout.MANIFEST)
    assert (manifest.format_version, manifest.version) == (1, pinned.version)


def test_the_manifest_is_written_as_it_was(pinned: Pinned) -> None:
    text = (BUNDLES / pinned.name / layout.MANIFEST).read_text(encoding="utf-8")
    manifest = read_manifest(BUNDLES / pinned.name / layout.MANIFEST)
    assert manifest.to_json() == text
    assert Manifest.model_validate_json(text) == manifest


def test_every_byte_is_as_it_was_sealed(pinned: Pinned) -> None:
    check_files(BUNDLES / pinned.name, read_manifest(BUNDLES / pinned.name / layout.MANIFEST))


@pytest.mark.parametrize("engine", ["beam", "generate"])
def test_it_loads_proves_itself_and_answers_as_it_did(pinned: Pinned, engine: str) -> None:
    recommender = Recommender.load(BUNDLES / pinned.name, device="cpu", engine=engine, expect_version=pinned.version)
    assert recommender.engine_name == engine
    (answer,) = recommender.recommend([Request(["i30", "i31", "i2"], k=6)])
    assert [item.item_id for item in answer.items] == [item_id for item_id, _ in pinned.items]
    assert [item.score for item in answer.items] == pytest.approx([score for _, score in pinned.items], abs=1e-4)
    assert [item.semantic_id for item in answer.items] == pinned.semantic_ids


def test_its_golden_answers_ask_for_all_that_a_request_could_then(pinned: Pinned) -> None:
    recommender = Recommender.load(BUNDLES / pinned.name, device="cpu")
    asked = {key for answer in read_golden(recommender.bundle) for key in answer.request}
    assert asked == {"history", "k", "exclude", "exclude_history", "num_beams", "filter"}


def test_git_keeps_the_bytes_and_does_not_hide_them(pinned: Pinned) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")
    names = [path.relative_to(ROOT).as_posix() for path in layout.walk(BUNDLES / pinned.name)]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == ""
    attributes = subprocess.run(
        ["git", "check-attr", "text", "--", *names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.rpartition(": ")[2] for line in attributes.stdout.splitlines()} == {"unset"}
