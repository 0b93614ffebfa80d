"""What the page shows while there is no answer, and how it comes back.

Services that are busy, loading or locked are the real application on a real socket, around a model that waits when it
is told; no answer is made up by the browser.
"""

import json
import threading

import httpx
import pytest
from playwright.sync_api import expect

from tests.service.fakes import FakeRecommender
from tests.system.playground.chromium import gated, visiting
from tests.system.playground.pages import answered, link

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

KEY = "a-key-of-thirty-two-characters-or-more"


def test_an_unknown_item_of_a_link_is_shown_as_such(visit, history):
    visit.expected.add("404")
    page = visit.open(link([{"item_id": "no-such-item"}, *history]))
    answered(page)
    expect(page.locator("#history > li").first).to_contain_text("not in the catalog, will be ignored")
    expect(page.locator("#facts")).to_contain_text("1 unknown ignored")


def test_popular_items_are_marked_and_there_is_no_tree_to_draw(visit):
    page = visit.open()
    page.get_by_role("button", name="Nobody yet").first.click()
    answered(page)
    expect(page.locator("#cards .badge.popular")).to_have_count(10)
    expect(page.locator("#facts")).to_contain_text("popular items")
    expect(page.locator("#tree-none")).to_be_visible()


def test_what_is_refused_marks_its_field(visit, history):
    visit.expected.add("422")
    page = visit.open(link(history, k=10))
    answered(page)
    page.get_by_label("Beams").fill("2")
    page.get_by_label("Beams").blur()
    expect(page.get_by_role("heading", name="The request was refused")).to_be_visible()
    expect(page.get_by_label("Beams")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Beams").fill("")
    page.get_by_label("Beams").blur()
    answered(page)
    assert page.get_by_label("Beams").get_attribute("aria-invalid") is None


def test_a_busy_service_is_asked_again_when_it_said(browser):
    with (
        gated(max_queue_rows=1, max_batch_requests=1, default_timeout_ms=60_000) as (url, model),
        visiting(browser, url) as visit,
    ):
        visit.expected.add("429")
        page = visit.open()
        expect(page.get_by_role("button", name="The most popular").first).to_be_visible()
        model.gate.clear()
        other = threading.Thread(
            target=httpx.post, args=(f"{url}/recommend",), kwargs={"json": {"history": ["1"]}, "timeout": 30}
        )
        other.start()
        assert model.entered.wait(5)
        page.get_by_role("button", name="The most popular").first.click()
        expect(page.get_by_role("heading", name="The service is busy")).to_be_visible()
        expect(page.locator(".countdown")).to_contain_text("Asking again in")
        expect(page.get_by_role("button", name="Ask now")).to_be_visible()
        model.gate.set()
        answered(page, 8)
        expect(page.locator("#notice")).to_be_hidden()
        other.join(10)


def test_a_service_that_loads_is_waited_for(browser):
    gate = threading.Event()

    def load(*_: object, **__: object) -> FakeRecommender:
        gate.wait()
        return FakeRecommender()

    try:
        with gated(load) as (url, _), visiting(browser, url) as visit:
            visit.expected.add("503")
            page = visit.open("ui/#h=1&h=2")
            expect(page.get_by_role("heading", name="The service is not ready")).to_be_visible()
            expect(page.locator("#notice")).to_contain_text("loading")
            gate.set()
            answered(page)
    finally:
        gate.set()


def test_a_service_that_is_gone_is_waited_for(visit, history):
    visit.expected.add("ERR_INTERNET_DISCONNECTED")
    page = visit.open(link(history))
    shown = answered(page)
    visit.context.set_offline(True)
    page.get_by_role("button", name="Recommend").click()
    expect(page.get_by_role("heading", name="The service cannot be reached")).to_be_visible()
    visit.context.set_offline(False)
    assert answered(page) == shown


def test_a_key_is_asked_for_kept_in_the_tab_and_never_in_the_link(browser, tmp_path):
    (tmp_path / "keys").write_text(KEY + "\n")
    with gated(api_keys_file=tmp_path / "keys", ui="open") as (url, _), visiting(browser, url) as visit:
        visit.expected.add("401")
        page = visit.open("ui/#h=1&h=2")
        dialog = page.get_by_role("dialog", name="This service asks for a key")
        expect(dialog).to_be_visible()
        dialog.get_by_label("API key").fill("wrong" * 8)
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("That key was refused")
        dialog.get_by_role("button", name="Not now").click()
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
        page.get_by_role("button", name="Give a key").click()
        dialog.get_by_label("API key").fill(KEY)
        dialog.get_by_role("button", name="Use it").click()
        answered(page)
        assert KEY not in page.url
        assert page.evaluate("[JSON.stringify(localStorage), document.cookie]") == ["{}", ""]
        assert page.evaluate("JSON.stringify(sessionStorage)") == json.dumps({"genrec.key": KEY}, separators=(",", ":"))
        for panel in ("curl", "python", "request"):
            assert KEY not in (page.locator(f"#code-{panel}").text_content() or "")
