"""Items off and on: on the disk before they are seen, and there again after any end."""

import os
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from genrec.allowed import ItemMask
from genrec.availability import Availability
from genrec.errors import InputError, RequestError
from genrec.recommender import Recommender
from genrec.semantic_id import Catalog
from service import catalog_switch
from service.catalog_switch import FILE, CatalogStatus, CatalogSwitch
from service.errors import NotReady, NotStored
from service.inference import InferenceThread, Limits
from service.state_directory import StateDirectory
from tests.service.fakes import FakeBundle, FakeRecommender, small_catalog

pytestmark = pytest.mark.usefixtures("let_go")


def loaded(catalog: Catalog) -> Recommender:
    """As a recommender comes from its bundle: everything is on."""
    everything = Availability(0, ItemMask.everything(len(catalog)))
    return cast(Recommender, FakeRecommender(FakeBundle(catalog), everything))


class Inference:
    """As much of the inference thread as a switch sees."""

    def __init__(self, recommender: object) -> None:
        self.recommender = cast(Recommender, recommender)
        self.events: list[str] = []

    @contextmanager
    def changing(self):
        yield self.recommender

    def replace(self, recommender):
        self.events.append("seen")
        self.recommender = recommender

    @property
    def off(self) -> set[str]:
        catalog = self.recommender.bundle.catalog
        return {catalog.item_id(int(row)) for row in np.flatnonzero(~self.recommender.availability.mask.allowed)}


class Service:
    """A switch and what it switches, started anew as often as wanted."""

    def __init__(self, path: Path, catalog: Catalog | None = None) -> None:
        self.path = path
        self.directory = StateDirectory.open(path)
        self.switch = CatalogSwitch(self.directory)
        self.inference = Inference(self.switch.restore(loaded(catalog or small_catalog())))

    def change(self, off=(), on=()) -> tuple[CatalogStatus, int]:
        return self.switch.change(cast(InferenceThread, self.inference), list(off), list(on))

    @property
    def version(self) -> int:
        return self.inference.recommender.availability.version

    def restarted(self, catalog: Catalog | None = None) -> "Service":
        self.directory.close()
        return Service(self.path, catalog)


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


def other_catalog() -> Catalog:
    """Another bundle: some of the items in other rows, and two that are new."""
    codes = np.array([[a, 0, 0] for a in range(5)], dtype=np.int32)
    return Catalog(pa.array(["new", "3", "1", "later", "é🎬"]), codes, np.arange(5), pa.table({}))


def test_items_go_off_and_on_and_each_change_is_a_version(service):
    assert (service.version, service.inference.off) == (0, set())
    assert service.change(off=["1", "2", "é🎬"]) == (CatalogStatus(1, 3, 0), 0)
    assert service.change(off=["3"], on=["1"]) == (CatalogStatus(2, 3, 0), 0)
    assert service.inference.off == {"2", "3", "é🎬"}
    assert service.version == 2


def test_what_changes_nothing_takes_no_version_and_no_write(service, monkeypatch):
    service.change(off=["1"])
    monkeypatch.setattr(StateDirectory, "write", lambda *_: pytest.fail("written"))
    recommender = service.inference.recommender
    for off, on in ((["1"], []), ([], ["2"]), ([], []), (["1", "1"], ["2", "unknown"])):
        status, _ = service.change(off, on)
        assert status == CatalogStatus(1, 1, 0)
    assert service.inference.recommender is recommender


def test_a_restart_finds_everything_as_it_was_acknowledged(service):
    service.change(off=["1", "2", "3"])
    service.change(on=["2"])
    again = service.restarted()
    assert (again.version, again.inference.off) == (2, {"1", "3"})
    assert again.change(off=["4"])[0] == CatalogStatus(3, 3, 0)
    assert again.restarted().inference.off == {"1", "3", "4"}


def test_versions_go_on_when_everything_is_on_again(service):
    service.change(off=["1"])
    service.change(on=["1"])
    assert (service.restarted().version, service.inference.off) == (2, set())


def test_ids_that_the_bundle_does_not_have_are_off_in_one_that_does(service):
    assert service.change(off=["1", "later", "never"], on=["typo"]) == (CatalogStatus(1, 1, 2), 3)
    other = service.restarted(other_catalog())
    assert (other.version, other.inference.off) == (1, {"1", "later"})
    assert other.change(on=["later", "never"]) == (CatalogStatus(2, 1, 0), 1)
    back = other.restarted()
    assert (back.version, back.inference.off) == (2, {"1"})


def test_items_of_an_older_bundle_stay_off_while_a_newer_one_lacks_them(service):
    service.change(off=["7", "3"])
    other = service.restarted(other_catalog())
    assert other.switch.status(other.inference.recommender) == CatalogStatus(1, 1, 1)
    assert other.change(off=["new"])[0] == CatalogStatus(2, 2, 1)
    assert other.restarted().inference.off == {"7", "3"}


def test_another_bundle_loaded_beside_is_given_what_is_off(service):
    service.change(off=["1", "later"])
    beside = service.switch.restore(loaded(other_catalog()))
    assert beside.availability.version == 1
    assert beside.availability.mask.allowed.tolist() == [True, True, False, False, True]


def test_an_item_in_both_lists_is_refused_with_its_place(service):
    with pytest.raises(RequestError) as caught:
        service.change(off=["1", "2"], on=["3", "2"])
    assert caught.value.pointer == "/on/1"
    assert (service.version, service.inference.off) == (0, set())


def test_wrong_ids_cannot_fill_the_disk(service, monkeypatch):
    monkeypatch.setattr(catalog_switch, "MAX_UNKNOWN_OFF", 3)
    service.change(off=["a", "b", "c"])
    with pytest.raises(RequestError) as caught:
        service.change(off=["1", "d"])
    assert caught.value.pointer == "/off"
    assert (service.version, service.inference.off) == (1, set())
    service.change(off=["1", "d"], on=["a"])
    assert service.restarted().switch.status(service.inference.recommender).unknown_items_off == 3


def test_it_is_on_the_disk_before_it_is_seen(service, monkeypatch):
    write = StateDirectory.write
    monkeypatch.setattr(
        StateDirectory, "write", lambda *args: (write(*args), service.inference.events.append("on the disk"))[0]
    )
    service.change(off=["1"])
    service.inference.events.append("acknowledged")
    assert service.inference.events == ["on the disk", "seen", "acknowledged"]


def test_a_disk_that_does_not_take_it_changes_nothing_and_takes_the_next(service, monkeypatch):
    service.change(off=["1"])
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(NotStored):
            service.change(off=["2", "unknown"])
    assert (service.version, service.inference.off) == (1, {"1"})
    assert service.change(off=["3"])[0] == CatalogStatus(2, 2, 0)
    assert service.restarted().inference.off == {"1", "3"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"x\n",
        lambda content: b"\0" * len(content),
        lambda content: content.replace(b'"catalog_version":1', b'"catalog_version":9'),
        lambda content: content.replace(b"alien", b"Alien"),
        lambda content: content.split(b"\n", 1)[1],
    ],
)
def test_a_damaged_file_is_refused_at_start_and_left_alone(service, damage):
    service.change(off=["films/alien?", "2"])
    service.directory.close()
    content = damage((service.path / FILE).read_bytes())
    (service.path / FILE).write_bytes(content)
    for _ in range(2):
        with (
            closing(StateDirectory.open(service.path)) as directory,
            pytest.raises(InputError, match=f"the state file .*{FILE} is damaged: .*or remove it") as caught,
        ):
            CatalogSwitch(directory)
        assert caught.value.exit_code == 65
    assert (service.path / FILE).read_bytes() == content


def test_a_file_that_was_not_finished_is_no_damage(service):
    service.change(off=["1"])
    service.directory.close()
    (service.path / f"{FILE}.partial").write_bytes(b"half of")
    again = Service(service.path)
    assert again.inference.off == {"1"}
    assert not (service.path / f"{FILE}.partial").exists()


def test_nothing_changes_after_the_end(service):
    service.directory.close()
    with pytest.raises(NotReady):
        service.change(off=["1"])
    assert service.version == 0


def test_changes_at_once_are_made_one_after_the_other(tmp_path):
    switch = CatalogSwitch(StateDirectory.open(tmp_path))
    thread = InferenceThread(lambda: cast(Recommender, FakeRecommender()), Limits(max_queue_rows=1, max_batch_rows=1))
    with pytest.raises(NotReady):
        switch.change(thread, ["1"], [])
    thread.start()
    thread.loaded.result(5)
    versions: list[int] = []

    def changer(number: int) -> None:
        for _ in range(10):
            versions.append(switch.change(thread, [str(number)], [])[0].version)
            versions.append(switch.change(thread, [], [str(number)])[0].version)

    changers = [threading.Thread(target=changer, args=(number,)) for number in range(5)]
    for one in changers:
        one.start()
    for one in changers:
        one.join()
    assert sorted(versions) == list(range(1, 101))
    assert thread.recommender.availability.items_off == 0
    thread.stop(5.0)


def test_a_status_belongs_to_the_recommender_it_is_asked_about(service):
    service.change(off=["1"])
    assert service.switch.status(loaded(other_catalog())) == CatalogStatus(0, 0, 0)
    assert service.switch.status(service.inference.recommender) == CatalogStatus(1, 1, 0)
