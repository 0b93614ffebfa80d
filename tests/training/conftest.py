"""Real data beside the checkout, where there are any, and a whole training run of each architecture."""

from pathlib import Path
from typing import cast

import pytest

from tests.training.lifecycle import Later, go_on, refit
from tests.training.runs import Run, train

WHOLE_RUNS = {"finished", "refitted", "gone_on"}
"""Tests that ask for one of these are run by make test-system."""

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and WHOLE_RUNS & set(item.fixturenames):
            item.add_marker(pytest.mark.system)


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets of {SHARED_DATA}, which are not part of this repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def kept() -> dict[tuple[str, str], Run | Later]:
    """What was trained already. pytest forgets a fixture of one architecture whenever a test wants the other."""
    return {}


@pytest.fixture(scope="session")
def finished(
    architecture: str, kept: dict[tuple[str, str], Run | Later], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A whole run of the tiny recipe; read it, do not change it."""
    key = ("finished", architecture)
    if key not in kept:
        kept[key] = train(architecture, tmp_path_factory.mktemp("run") / architecture)
    return cast(Run, kept[key])


@pytest.fixture(scope="session")
def refitted(
    finished: Run, kept: dict[tuple[str, str], Run | Later], tmp_path_factory: pytest.TempPathFactory
) -> Later:
    """The same run, refitted; read it, do not change it."""
    key = ("refitted", finished.architecture)
    if key not in kept:
        kept[key] = refit(finished, tmp_path_factory.mktemp("refit") / finished.architecture)
    return cast(Later, kept[key])


@pytest.fixture(scope="session")
def gone_on(finished: Run, kept: dict[tuple[str, str], Run | Later], tmp_path_factory: pytest.TempPathFactory) -> Later:
    """A run that goes on from the bundle of `finished`, on the data of a month later; read it, do not change it."""
    key = ("gone on", finished.architecture)
    if key not in kept:
        later = go_on(finished, finished.bundle, tmp_path_factory.mktemp("later") / finished.architecture)
        kept[key] = later
    return cast(Later, kept[key])
