"""A trained bundle, asked over HTTP, gives what transformers alone gives.

The oracle is an independent reading of the bundle: it imports nothing of ours.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.oracle import ORACLE, agree_on_all
from training.sequences import load_sequences

ROOT = Path(__file__).parents[2]
NUM_HISTORIES = 200

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ORACLE.is_file(), reason=f"the oracle is not at {ORACLE}"),
]


@pytest.fixture(scope="module", params=["tiny-causal", "tiny-t5"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle and its prepared data, by the real command."""
    root = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "genrec", "train", request.param]
    subprocess.run([*command, "--output", root / "bundle", "--work", root / "work"], check=True)
    return root / "bundle", root / "work" / "prepare"


@pytest.mark.parametrize("exclude_history", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_trained_bundle_answers_as_transformers_does(
    trained: tuple[Path, Path], exclude_history: bool, tmp_path: Path
) -> None:
    _agree_on_all(*trained, exclude_history, tmp_path)


@pytest.mark.skipif(not (ROOT / "bundles/demo").is_dir(), reason="no demo bundle: `make bundle` trains it")
@pytest.mark.parametrize("exclude_history", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_the_demo_answers_as_transformers_does(exclude_history: bool, tmp_path: Path) -> None:
    _agree_on_all(ROOT / "bundles/demo", ROOT / "runs/demo/prepare", exclude_history, tmp_path)


def _agree_on_all(bundle: Path, prepared: Path, exclude_history: bool, scratch: Path) -> None:
    sequences = load_sequences(prepared)
    cases = [*sequences.test_cases(), *sequences.validation_cases()][
        :NUM_HISTORIES
    ]  # the tiny data have 120 test users
    histories = [[sequences.item_ids[row] for row in case.history] for case in cases]
    agree_on_all(bundle, histories, exclude_history, scratch)
