"""Real data beside the checkout, where there are any, and a whole training run of each architecture."""

from pathlib import Path

import pytest

from tests.training.runs import Run, train

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets of {SHARED_DATA}, which are not part of this repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def finished(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run of the tiny recipe; read it, do not change it."""
    return train(architecture, tmp_path_factory.mktemp("run") / architecture)
