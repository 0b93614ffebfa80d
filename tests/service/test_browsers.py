"""One browser a bundle, gone with it; making one keeps nobody from the others."""

import gc
import threading
from typing import cast

import pytest

from genrec.bundle import Bundle
from service import browsers
from service.browser import CatalogBrowser
from service.browsers import Browsers
from tests.service.fakes import FakeBundle


def bundle() -> Bundle:
    return cast(Bundle, FakeBundle())


def test_each_bundle_has_its_own_and_it_is_made_once() -> None:
    made, one, other = Browsers(), bundle(), bundle()
    assert made.of(one) is made.of(one)
    assert made.of(one) is not made.of(other)


def test_it_goes_with_its_bundle() -> None:
    made, one = Browsers(), bundle()
    made.of(one)
    del one
    gc.collect()
    assert len(made._made) == 0


def test_while_one_is_made_the_others_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    made, served, loading = Browsers(), bundle(), bundle()
    browser, gate, entered = made.of(served), threading.Event(), threading.Event()

    def slowly(*parts: object) -> CatalogBrowser:
        entered.set()
        gate.wait(10)
        return CatalogBrowser(*parts)  # type: ignore[arg-type]

    monkeypatch.setattr(browsers, "CatalogBrowser", slowly)
    both = [threading.Thread(target=made.of, args=(loading,)) for _ in range(2)]
    for one in both:
        one.start()
    assert entered.wait(10)
    found: list[CatalogBrowser] = []
    asking = threading.Thread(target=lambda: found.append(made.of(served)))
    asking.start()
    asking.join(2)
    meanwhile = list(found)
    gate.set()
    for one in (*both, asking):
        one.join(10)
    assert meanwhile == [browser]
    assert made.of(loading) is made.of(loading)
