"""Fixtures that several packages share: one tiny sealed bundle of each architecture, made once."""

from pathlib import Path

import pytest
import torch

from tests.fakes import TinyShape, tiny_bundle


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models are faster without a thread pool."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["seq2seq", "causal"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def bundle_path(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed tiny bundle; read it, do not change it."""
    return tiny_bundle(tmp_path_factory.mktemp(architecture), TinyShape(architecture))


@pytest.fixture(scope="session")
def causal_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The causal one alone, for tests where the architecture does not matter."""
    return tiny_bundle(tmp_path_factory.mktemp("only-causal"), TinyShape("causal"))
