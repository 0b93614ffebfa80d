"""A change of the bundle: all of it or nothing, one at a time, written down before it is seen."""

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from genrec.bundle import Shelf
from genrec.errors import BundleError, EngineError, InputError
from genrec.recommender import Recommender
from service import bundle_switch
from service.bundle_record import BundleRecord
from service.bundle_switch import FILE, BundleSwitch, Changed
from service.catalog_switch import CatalogSwitch
from service.errors import Busy, NothingBefore, NotReady, NotStored
from service.inference import InferenceThread
from service.state_directory import StateDirectory
from tests.service.fakes import FakeBundle, FakeRecommender
from tests.service.test_catalog_switch import Inference


class Switching:
    """A switch over a shelf with bundles `a`, `b` and `c`, what it switches, and what it was told."""

    def __init__(self, root: Path, configured: str = "a") -> None:
        self.directory = StateDirectory.open(root / "state")
        self.catalog = CatalogSwitch(self.directory)
        self.load: Callable[[Path], FakeRecommender] = self.fresh
        self.swapped: list[Recommender] = []
        self.switch = BundleSwitch(
            root / "shelf" / configured,
            Shelf(root / "shelf"),
            self.directory,
            self.catalog,
            lambda path: cast(Recommender, self.load(path)),
        )
        first = self.fresh(root / "shelf" / configured)
        self.inference = Inference(self.catalog.restore(cast(Recommender, first)))

    @staticmethod
    def fresh(path: Path) -> FakeRecommender:
        return FakeRecommender(FakeBundle(path=path))

    @property
    def served(self) -> str:
        return self.inference.recommender.bundle.path.name

    def begin(self, name: str) -> Any:
        return self.switch.change(cast(InferenceThread, self.inference), name, self.swapped.append)

    def change(self, name: str) -> Changed:
        return self.begin(name).result(10)

    def back(self) -> Changed:
        return self.switch.back(cast(InferenceThread, self.inference), self.swapped.append).result(10)


@pytest.fixture
def root(causal_bundle_path: Path, tmp_path: Path) -> Path:
    for name in "abc":
        shutil.copytree(causal_bundle_path, tmp_path / "shelf" / name)
    return tmp_path


@pytest.fixture
def switching(root: Path) -> Iterator[Switching]:
    one = Switching(root)
    with closing(one.directory):
        yield one


def test_a_change_is_loaded_written_down_and_then_served(switching: Switching) -> None:
    changed = switching.change("b")
    assert (switching.served, changed.record) == ("b", BundleRecord("a", "b", "a"))
    assert changed.recommender is switching.inference.recommender
    assert switching.swapped == [changed.recommender]
    assert BundleRecord.from_bytes(cast(bytes, switching.directory.read(FILE))) == changed.record


def test_a_rollback_is_a_change_to_the_one_before_and_there_must_be_one(switching: Switching) -> None:
    with pytest.raises(NothingBefore):
        switching.back()
    switching.change("b")
    assert switching.back().record == BundleRecord("a", "a", "b")
    assert switching.back().record.current == switching.served == "b"


def test_a_service_that_starts_again_serves_what_it_served(root: Path, switching: Switching) -> None:
    switching.change("b")
    switching.directory.close()
    with closing((again := Switching(root)).directory):
        assert again.switch.current == root / "shelf" / "b"
        assert again.back().record.current == "a"


def test_settings_that_were_changed_since_win(root: Path, switching: Switching) -> None:
    switching.change("b")
    switching.directory.close()
    with closing((again := Switching(root, "c")).directory):
        assert again.switch.current == root / "shelf" / "c"
        assert again.switch.record == BundleRecord.of("c")


def test_a_bundle_has_the_name_of_its_directory_however_the_settings_spell_it(
    root: Path, switching: Switching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configured(path: str) -> BundleRecord:
        spelled = Path(path)
        return BundleSwitch(
            spelled, Shelf(root / "shelf"), switching.directory, switching.catalog, lambda _: None
        ).record  # type: ignore[arg-type, return-value]

    monkeypatch.chdir(root / "shelf" / "a")
    (root / "shelf" / "latest").symlink_to("a")
    assert [configured(path) for path in (".", "../a", "../latest")] == [BundleRecord.of("a")] * 3


def test_a_record_of_a_bundle_that_is_gone_is_refused_with_the_mend(root: Path, switching: Switching) -> None:
    switching.change("b")
    switching.directory.close()
    shutil.rmtree(root / "shelf" / "b")
    with (
        closing((again := Switching(root)).directory),
        pytest.raises(InputError, match=r"Put it back, or remove .*bundle"),
    ):
        _ = again.switch.current


def test_a_damaged_record_is_refused_at_start_and_left_alone(root: Path, switching: Switching) -> None:
    (root / "state" / FILE).write_text("not this")
    with pytest.raises(InputError, match="is damaged"):
        BundleSwitch(
            root / "shelf" / "a", Shelf(root / "shelf"), switching.directory, switching.catalog, lambda _: None
        )  # type: ignore[arg-type, return-value]
    assert (root / "state" / FILE).read_text() == "not this"


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (BundleError("file x has another hash"), BundleError),
        (InputError("no such device"), BundleError),
        (EngineError("warm-up"), BundleError),
        (MemoryError(), EngineError),
        (KeyError("x"), EngineError),
    ],
)
def test_a_bundle_that_cannot_be_loaded_changes_nothing(
    switching: Switching, raised: Exception, seen: type[Exception]
) -> None:
    def load(_: Path) -> FakeRecommender:
        raise raised

    switching.load = load
    with pytest.raises(seen):
        switching.change("b")
    assert (switching.served, switching.switch.record, switching.swapped) == ("a", BundleRecord.of("a"), [])
    assert switching.directory.read(FILE) is None
    switching.load = switching.fresh
    assert switching.change("b").record.current == "b", "and the next one is taken"


def test_a_reason_names_the_bundle_and_not_where_it_is(root: Path, switching: Switching) -> None:
    def load(path: Path) -> FakeRecommender:
        raise BundleError(f"{path}: file {path / 'x'} is damaged")

    switching.load = load
    with pytest.raises(BundleError, match=r"^b: file b/x is damaged$"):
        switching.change("b")
    with pytest.raises(BundleError) as caught:
        switching.change("nothing")
    assert str(root) not in str(caught.value)


def test_what_is_off_stays_off(switching: Switching) -> None:
    switching.catalog.change(cast(InferenceThread, switching.inference), ["7", "2"], [])
    switching.change("b")
    assert switching.inference.off == {"7", "2"}
    assert switching.inference.recommender.availability.version == 1


def test_a_change_that_cannot_be_written_down_is_not_made(
    switching: Switching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, content: bytes) -> None:
        raise NotStored("the disk is full")

    monkeypatch.setattr(switching.directory, "write", full)
    with pytest.raises(NotStored):
        switching.change("b")
    assert (switching.served, switching.switch.record, switching.swapped) == ("a", BundleRecord.of("a"), [])


def test_a_bundle_that_does_not_fit_beside_is_refused_before_it_is_read(
    switching: Switching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Path) -> FakeRecommender:
        raise AssertionError("it was read")

    monkeypatch.setattr(bundle_switch, "free_memory", lambda device: 1000)
    switching.load, able = load, switching.load
    with pytest.raises(BundleError, match=r"needs \d+ MiB of memory on cpu .* and 0 MiB are free"):
        switching.change("b")
    monkeypatch.setattr(bundle_switch, "free_memory", lambda device: None)
    switching.load = able
    assert switching.change("b").record.current == "b", "where nobody can say how much is free it is tried"


class Slow:
    """A load that waits until it is let go."""

    def __init__(self, switching: Switching) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()
        switching.load = self

    def __call__(self, path: Path) -> FakeRecommender:
        self.entered.set()
        self.gate.wait(10)
        return Switching.fresh(path)


def test_one_change_at_a_time(switching: Switching) -> None:
    slow = Slow(switching)
    first = switching.begin("b")
    assert slow.entered.wait(10)
    assert switching.switch.under_way
    with pytest.raises(Busy):
        switching.begin("c")
    assert switching.served == "a", "the old one serves meanwhile"
    slow.gate.set()
    assert first.result(10).record.current == "b"
    assert not switching.switch.under_way
    assert switching.change("c").record.current == "c"


def test_a_stop_tells_who_waits_and_what_is_loaded_then_is_not_swapped_in(switching: Switching) -> None:
    slow = Slow(switching)
    waiting = switching.begin("b")
    assert slow.entered.wait(10)
    switching.switch.stop()
    with pytest.raises(NotReady, match="was not changed"):
        waiting.result(0.5)
    slow.gate.set()
    [reload] = [thread for thread in threading.enumerate() if thread.name == "reload"]
    reload.join(10)
    assert (switching.served, switching.directory.read(FILE)) == ("a", None)
    with pytest.raises(NotReady, match="no bundle is loaded any more"):
        switching.begin("c")


def test_a_bundle_that_was_refused_is_let_go_without_the_collector(switching: Switching) -> None:
    refused: list[weakref.ref[FakeRecommender]] = []

    def load(path: Path) -> FakeRecommender:
        fresh = Switching.fresh(path)
        refused.append(weakref.ref(fresh))
        raise BundleError(f"its golden answers are others than those of {fresh.engine_name}")

    switching.load = load
    gc.disable()  # which looks rarely while the service runs, and a bundle may be as large as half of the memory
    try:
        with pytest.raises(BundleError):
            switching.change("b")
        for thread in threading.enumerate():
            if thread.name == "reload":
                thread.join(10)
        assert refused[0]() is None
    finally:
        gc.enable()


def test_the_record_is_a_file_that_people_can_read(switching: Switching) -> None:
    switching.change("b")
    content = json.loads(cast(bytes, switching.directory.read(FILE)))
    assert content == {"format_version": 1, "configured": "a", "current": "b", "previous": "a"}
