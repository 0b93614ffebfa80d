"""Fixtures of the domain's tests."""

import shutil
from pathlib import Path

import pytest

from genrec.recommender import Recommender
from tests.fakes import TinyShape, tiny_bundle


@pytest.fixture(scope="session")
def recommender(bundle_path: Path) -> Recommender:
    """A loaded tiny bundle of each architecture: 40 items, 3 levels, histories of 5, 6 beams, k up to 50."""
    return Recommender.load(bundle_path, device="cpu")


@pytest.fixture(scope="session")
def causal(causal_bundle_path: Path) -> Recommender:
    """The causal one, for tests where the architecture does not matter."""
    return Recommender.load(causal_bundle_path, device="cpu")


@pytest.fixture(scope="session")
def seq2seq_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder-decoder one; read it, do not change it."""
    return tiny_bundle(tmp_path_factory.mktemp("only-seq2seq"), TinyShape("seq2seq"))


@pytest.fixture
def bundle_copy(causal_bundle_path: Path, tmp_path: Path) -> Path:
    """A causal bundle that a test may damage."""
    return Path(shutil.copytree(causal_bundle_path, tmp_path / "tiny"))
