"""From a directory to a recommender that may serve."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrec.errors import BundleError
from service import loading
from service.loading import load_to_serve
from tests.service.fakes import some_settings


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_it_is_loaded_as_the_settings_say_and_warm(causal_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[tuple[object, int]] = []
    monkeypatch.setattr(loading, "warm_up", lambda recommender, rows: warmed.append((recommender, rows)))
    settings = some_settings(engine="generate", max_batch_rows=12, max_proof_beams=7, threads=1)
    recommender = load_to_serve(causal_bundle_path, settings)
    assert (recommender.engine_name, recommender.max_proof_beams) == ("generate", 7)
    assert warmed == [(recommender, 12)]


def test_another_version_than_the_expected_is_refused(causal_bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="ffffffffffff"):
        load_to_serve(causal_bundle_path, some_settings(expect_version="f" * 12, threads=1))


def test_a_recommender_hidden_from_the_collector_goes_all_the_same(causal_bundle_path: Path) -> None:
    # Frozen objects are never looked at again, so a model in a cycle would stay for ever: one more with each reload.
    gone = weakref.ref(load_to_serve(causal_bundle_path, some_settings(threads=1)).bundle.model)
    assert gc.get_freeze_count() > 0
    assert gone() is None
