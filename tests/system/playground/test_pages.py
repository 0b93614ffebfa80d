"""Roles and names, small screens and dark mode, the status page, and the parts that only compute."""

import re

import pytest
from playwright.sync_api import expect

from tests.system.playground.chromium import visiting
from tests.system.playground.pages import answered, link

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_landmarks_names_and_headings(visit, history):
    page = visit.open(link(history))
    answered(page)
    for role in ("banner", "main"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("navigation", name="Pages")).to_have_count(1)
    for region in ("History", "Request", "Recommendations", "Examples", "How the answer came about"):
        expect(page.get_by_role("region", name=region, exact=True)).to_have_count(1)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, a')].filter(one =>
             one.checkVisibility() && !one.ariaLabel && !one.textContent.trim() && !(one.labels?.length)
           ).map(one => one.outerHTML)"""
    )
    assert nameless == []
    doubled = page.locator("[id]").evaluate_all(
        "all => all.map(one => one.id).filter((id, n, ids) => ids.indexOf(id) !== n)"
    )
    assert doubled == []
    expect(page.get_by_role("switch", name="Prove it exact")).not_to_be_checked()
    page.get_by_role("switch", name="Leave out the history").click()
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("path", ["ui/", "ui/status"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_system(browser, client, history, path, scheme):
    url = str(client.base_url).rstrip("/")
    with visiting(
        browser, url, viewport={"width": 375, "height": 740}, color_scheme=scheme, reduced_motion="reduce"
    ) as visit:
        page = visit.open(link(history) if path == "ui/" else path)
        if path == "ui/":
            answered(page)
        else:
            expect(page.locator("#state")).to_have_text("Ready")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        light = "Number(getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/)[0]) > 0.5"
        assert page.evaluate(light) is (scheme == "light")
        page.locator("#theme").click()
        page.locator("#theme").click()
        assert page.evaluate(light) is False
        page.reload()
        assert page.evaluate(light) is False


def test_the_status_page_tells_what_is_served_and_how_it_does(visit, client, history):
    page = visit.open("ui/status")
    expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("#model")).to_contain_text("3 levels of 8, 12, 16 codes")
    expect(page.locator("#catalog")).to_contain_text("400")
    expect(page.locator("#quality")).to_contain_text("Nothing was measured")
    expect(page.locator("#live")).to_contain_text("p99")
    for _ in range(20):
        client.post("/recommend", json={"history": [history[0]["item_id"]]})
    expect(page.locator("#live > div").first.locator(".number")).not_to_have_text("0.0")
    expect(page.locator("#answered")).to_contain_text(re.compile(r"200 × \d"))


def test_histograms_and_links_are_read_right(visit):
    page = visit.open()
    reading = """async () => {
      const { parse, quantile, total } = await import('./exposition.js');
      const text = (n) => `# TYPE s histogram\\ns_bucket{e="a",le="0.1"} ${n}\\ns_bucket{e="a",le="0.2"} ${3 * n}\\n` +
        `s_bucket{e="a",le="+Inf"} ${4 * n}\\nreq_total{path="a\\\\"}b"} 7\\nnot a line`;
      const [a, b] = [parse(text(0)), parse(text(10))];
      const quantiles = [quantile(0.5, a, b, 's'), quantile(0.99, a, b, 's'), quantile(0.5, a, a, 's')];
      return [...quantiles, total(b, 'req_total'), total(b, 'none')];
    }"""
    assert page.evaluate(reading) == [pytest.approx(0.15), 0.2, None, 7, None]
    around = """async (state) => {
      const { fromHash, toHash } = await import('./share_link.js');
      return fromHash('#' + toHash(state));
    }"""
    state = {
        "history": ["a&b=c", "ü %#", "films/alien?", "50"], "k": 3, "beams": 40, "excludeHistory": False,
        "proveExact": True, "where": {"or": [{"t": {"eq": "a&b#"}}]}, "includeIds": ["1", "&"], "tab": "curl",
        "asked": False,
    }  # fmt: skip
    assert page.evaluate(around, state) == state
