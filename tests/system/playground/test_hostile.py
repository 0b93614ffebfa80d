"""Titles and links are a stranger's: neither becomes markup, and no link breaks the page."""

import json
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.system.playground.pages import answered, link
from tests.system.playground.showcase import HOSTILE

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

HOSTILE_LINKS = [
    "h=%00%01&h=&k=-1&beams=1e9",
    "h=" + quote("<img src=x onerror=window.pwned=1>"),
    "k=999999999999&tab=javascript:alert(1)&where=" + quote('{"__proto__": {"x": 1}}'),
    "where=%7B%22a%22&only=[[[[&h=x",
    "where=" + quote("[" * 5000),
    "where=" + quote('{"constructor": {"eq": "x"}, "year": {"gte": {"$ne": 1}}}') + "&h=x",
    "where=null&only=" + quote('["a", 1]') + "&again=maybe&prove=2",
    "%E0%A4%A&=&&&h",
    "h=" + "x" * 100_000,
    "h=..&h=." + "&h=" + quote("../../admin/reload"),
    "again=constructor&tab=__proto__",
    "k=99999&beams=00012",
]


def test_a_title_that_is_markup_stays_letters(visit, client):
    found = client.get("/v1/items", params={"limit": len(HOSTILE)}).json()["items"]
    assert {item["metadata"]["title"] for item in found} == set(HOSTILE)
    only = json.dumps([item["item_id"] for item in found])
    page = visit.open(link(found, again="yes", only=only))
    assert sorted(answered(page, len(HOSTILE))) == sorted(HOSTILE)
    for title in HOSTILE:
        expect(page.locator("#history .entry-title", has_text=title)).to_have_text(title)
    page.get_by_role("combobox", name="Search items").fill("<script>")
    expect(page.get_by_role("option").first).to_contain_text("<script>window.pwned=2</script>")
    page.get_by_role("tree").locator(".node.kept").last.hover()
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#notice .example-items").filter(has_text="onerror")).to_have_count(1)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img:not([src='icon.svg']), #cards script, #history script, svg[onload]").count() == 0


def test_a_hostile_link_harms_nothing(visit):
    visit.expected |= {"404", "422"}
    reading = """async (hash) => {
      const state = (await import('./share_link.js')).fromHash(hash);
      return [state, typeof state.excludeHistory, typeof state.proveExact, typeof state.beams];
    }"""
    for hash_ in HOSTILE_LINKS:
        page = visit.open("ui/#" + hash_)
        page.reload()
        expect(page.locator("#bundle")).to_contain_text("showcase")
        expect(page.locator("#notice, #answer").locator("visible=true").first).to_be_visible()
        assert page.evaluate("[window.pwned, ({}).x]") == [None, None]
        state, *kinds = page.evaluate(reading, "#" + hash_)
        assert set(kinds) <= {"boolean", "object", "number"}, "a null is an object"
        assert state["tab"] == "tree" and 1 <= state["k"] <= 10_000
        assert len(state["history"]) <= 1_000 and all(0 < len(one) <= 512 for one in state["history"])
    page.get_by_role("button", name="The most popular").first.click()
    answered(page)
