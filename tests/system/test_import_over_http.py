"""Checkpoints that transformers alone trained, on the published codes of Amazon Beauty, become bundles that serve."""

import csv
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from genrec.bundle import load_bundle
from tests.system.foreign import LEVELS, PROMPTS, text_of, train_foreign
from tests.system.oracle import ORACLE, SHARED, agree_on_all

BEAUTY = SHARED / "data" / "beauty"
NUM_HISTORIES = 50
NUM_TRAINED = 2_000
STEPS = 60

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ORACLE.is_file(), reason=f"the oracle is not at {ORACLE}"),
    pytest.mark.skipif(not BEAUTY.is_dir(), reason=f"needs the data set in {BEAUTY}, no part of this repository"),
]


@dataclass(frozen=True)
class Beauty:
    """Histories of users, and how each item is spelled in the tokens of its published codes."""

    histories: list[list[str]]
    spelled: dict[str, str]


@dataclass(frozen=True)
class Import:
    architecture: str
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "beauty"

    def command(self, *options: str) -> subprocess.CompletedProcess[str]:
        files = {
            "model": self.folder / "checkpoint", "tokenizer": self.folder / "checkpoint",
            "codes": BEAUTY / "semantic_ids.csv", "items": BEAUTY / "items.csv", "prompt": self.folder / "prompt.json",
        }  # fmt: skip
        named = [text for name, file in files.items() for text in (f"--{name}", str(file))]
        return genrec("import", *named, "--output", str(self.bundle), *options)


def genrec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "genrec", *arguments], capture_output=True, text=True)


def rows(name: str) -> list[dict[str, str]]:
    with (BEAUTY / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def beauty() -> Beauty:
    histories = defaultdict(list)
    for row in rows("interactions.csv"):
        histories[row["user_id"]].append(row["item_id"])
    spelled = {
        row["item_id"]: "".join(f"<{letter}_{row[f'code_{level}']}>" for level, letter in enumerate(LEVELS))
        for row in rows("semantic_ids.csv")
    }
    return Beauty(list(histories.values()), spelled)


@pytest.fixture(scope="module", params=["causal", pytest.param("seq2seq", marks=pytest.mark.soak)])
def imported(request: pytest.FixtureRequest, beauty: Beauty, tmp_path_factory: pytest.TempPathFactory) -> Import:
    made = Import(request.param, tmp_path_factory.mktemp(request.param))
    sequences = [[beauty.spelled[item] for item in history] for history in beauty.histories[:NUM_TRAINED]]
    train_foreign(made.architecture, sequences, made.folder / "checkpoint", STEPS)
    (made.folder / "prompt.json").write_text(json.dumps(PROMPTS[made.architecture]))
    refused = made.command()
    assert refused.returncode == 65
    assert "13 items have the semantic ID of another" in refused.stderr and "--collisions reassign" in refused.stderr
    done = made.command("--collisions", "reassign")
    assert done.returncode == 0, done.stderr
    print(done.stdout + done.stderr)
    return made


def test_it_verifies(imported: Import) -> None:
    verified = genrec("inspect", str(imported.bundle), "--verify")
    print(verified.stdout)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("verified: ")
    assert "12,101 items" in verified.stdout


def test_only_the_items_that_shared_an_id_have_another_and_every_token_is_the_old_one(
    imported: Import, beauty: Beauty
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(imported.folder / "checkpoint")
    bundle = load_bundle(imported.bundle)
    moved = {item["item_id"]: item for item in json.loads((imported.bundle / "training/reassigned.json").read_text())}
    assert len(moved) == 13
    sample = [*moved, *(item["shared_with"] for item in moved.values()), *sorted(beauty.spelled)[::100]]
    for item in sample:
        row = bundle.catalog.row(item)
        assert row is not None
        target = bundle.encoder.target(row)
        trained = tokenizer(beauty.spelled[item]).input_ids
        assert target[:3] == trained[:3]
        assert (target[3] != trained[3]) == (item in moved)
    assert len({tuple(bundle.encoder.target(row)) for row in range(len(bundle.catalog))}) == 12_101


def test_a_history_is_asked_as_it_was_in_training(imported: Import, beauty: Beauty) -> None:
    tokenizer = AutoTokenizer.from_pretrained(imported.folder / "checkpoint")
    bundle = load_bundle(imported.bundle)
    moved = {item["item_id"] for item in json.loads((imported.bundle / "training/reassigned.json").read_text())}
    asked = [history for history in beauty.histories[:200] if not moved & set(history)]
    for history in asked:
        found = [bundle.catalog.row(item) for item in history]
        text = text_of(imported.architecture, [beauty.spelled[item] for item in history])
        assert bundle.encoder.encode([row for row in found if row is not None]) == tokenizer(text).input_ids


def test_items_without_a_title_have_none(imported: Import) -> None:
    titles = pq.read_table(imported.bundle / "catalog/items.parquet", columns=["title"])["title"]
    assert titles.null_count == 7
    assert "" not in titles.to_pylist()


@pytest.mark.parametrize("exclude_history", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_it_answers_as_transformers_does(
    imported: Import, beauty: Beauty, exclude_history: bool, tmp_path: Path
) -> None:
    held_out = [history[:-1] for history in beauty.histories[-NUM_HISTORIES:]]
    agree_on_all(imported.bundle, held_out, exclude_history, tmp_path)
