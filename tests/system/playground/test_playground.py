"""The playground in a real Chromium, in front of a real `genrec serve` process."""

import json
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.system.playground.chromium import visiting
from tests.system.playground.pages import add, answered, link

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_a_history_is_built_by_title_and_ten_items_come(visit, client, history):
    page = visit.open()
    expect(page.get_by_role("heading", name="What would come next?")).to_be_visible()
    for item in history:
        add(page, item["metadata"]["title"])
    ids = [item["item_id"] for item in history]
    expect(page.get_by_role("list", name="History, oldest first").get_by_role("listitem")).to_have_count(3)
    shown = answered(page)
    real = client.post("/recommend", json={"history": ids, "k": 10}).json()["items"]
    assert shown == [item["metadata"]["title"] for item in real]
    card = page.locator("#cards > li").first
    assert card.locator(".token").all_text_contents() == [str(code) for code in real[0]["semantic_id"]]
    expect(card.locator(".measure-value").last).to_have_text(f"{real[0]['score']:.3f}".replace("-", "−"))
    expect(page.locator("#said")).to_have_text("10 recommendations.")


def test_the_same_code_at_the_same_level_looks_the_same(visit, history):
    page = visit.open(link(history))
    answered(page)
    colours = page.eval_on_selector_all(
        "#cards .tokens, #history .tokens",
        """all => all.flatMap(row => [...row.children].map((token, level) =>
             [level, token.textContent, getComputedStyle(token).backgroundColor]))""",
    )
    looks: dict[tuple[int, str], set[str]] = {}
    for level, code, colour in colours:
        looks.setdefault((level, code), set()).add(colour)
    assert all(len(seen) == 1 for seen in looks.values())
    by_level = [{colour for (at, _), seen in looks.items() if at == level for colour in seen} for level in range(3)]
    assert not (by_level[0] & by_level[1]) and not (by_level[1] & by_level[2])


def test_the_beam_tree_shows_the_whole_search(visit, client, history):
    page = visit.open(link(history))
    shown = answered(page)
    body = {"history": [item["item_id"] for item in history], "explain": True}
    levels = client.post("/recommend", json=body).json()["explain"]["levels"]
    tree = page.get_by_role("tree")
    expect(tree.locator(".node.kept")).to_have_count(sum(len(level["kept"]) for level in levels))
    assert tree.locator(".node.pruned, .node.closed").count() > 0
    for level in levels:
        counts = f"{len(level['kept'])} kept · {level['pruned_total']} pruned · {level['closed_total']} closed"
        expect(tree.get_by_role("img", name=f"Level {level['level']}: {counts}")).to_have_count(1)
    leaf = tree.get_by_role("treeitem", name=f"{shown[2]}, prefix").first
    leaf.hover()
    expect(page.locator("#tree-detail")).to_contain_text("log-probability")
    expect(page.locator("#item-3")).to_have_class(re.compile("marked"))
    leaf.click()
    expect(page.locator("#item-3")).to_be_focused()
    inner = tree.locator(".node.kept[aria-level='1']").first
    inner.hover()
    expect(page.locator("#tree-detail .below")).to_contain_text(re.compile(r"\w"))
    page.get_by_text("The same as tables").click()
    expect(page.get_by_role("table").first).to_contain_text("kept")


def test_the_tree_is_one_tab_stop_and_arrows_walk_it(visit, history):
    page = visit.open(link(history))
    answered(page)
    tree = page.get_by_role("tree")
    expect(tree.locator("[tabindex='0']")).to_have_count(1)
    first = tree.get_by_role("treeitem").and_(page.locator(".kept[aria-level='1']")).first
    first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("aria-level", "3")
    page.keyboard.press("ArrowDown")
    expect(page.locator(":focus")).to_have_attribute("aria-level", "3")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(":focus")).to_have_attribute("aria-level", "2")


def test_a_filter_is_built_and_obeyed(visit, client, history):
    page = visit.open(link(history))
    answered(page)
    page.get_by_text("Filter", exact=True).click()
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_role("combobox", name="Column of condition 1").select_option("year")
    page.get_by_role("combobox", name="Operator of condition 1").select_option("gte")
    page.get_by_label("Value of condition 1").fill("2000")
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_role("combobox", name="Column of condition 2").select_option("genres")
    page.get_by_label("Value of condition 2").fill("Drama, War")
    expect(page).to_have_url(re.compile("Drama"))
    body = {"where": {"year": {"gte": 2000}, "genres": {"any_of": ["Drama", "War"]}}}
    assert json.loads(page.locator("#filter-json").input_value()) == body
    ids = [item["item_id"] for item in history]
    real = client.post("/recommend", json={"history": ids, "filter": body}).json()["items"]
    assert real and all(item["metadata"]["year"] >= 2000 for item in real)
    expect(page.locator("#cards .item-title")).to_have_text([item["metadata"]["title"] for item in real])
    page.get_by_text("As JSON", exact=True).click()
    page.locator("#filter-json").fill('{"where": {"not": {"year": {"gte": 1990}}}}')
    page.locator("#filter-json").blur()
    expect(page.locator("#filter-note")).to_contain_text("edit it as JSON")
    expect(page).to_have_url(re.compile("not"))
    answered(page)
    items = json.loads(page.locator("#code-response").text_content() or "")["items"]
    assert max(item["metadata"]["year"] for item in items) < 1990


def test_a_shared_link_is_the_same_page_for_somebody_else(visit, browser, history):
    where = json.dumps({"year": {"gte": 1980}})
    page = visit.open(link(history, k=7, beams=20, again="yes", where=where, tab="request"))
    before = answered(page, 7)
    page.get_by_role("button", name="Move").nth(1).click()
    shown = answered(page, 7)
    with visiting(browser, visit.url) as other:
        other.page.goto(page.url)
        assert answered(other.page, 7) == shown != before
        expect(other.page.get_by_role("tab", name="Request")).to_have_attribute("aria-selected", "true")
        asked = json.loads(other.page.locator("#code-request").text_content() or "")
        assert (asked["k"], asked["num_beams"], asked["exclude_history"]) == (7, 20, False)
        assert asked["history"] == json.loads(page.locator("#code-request").text_content() or "")["history"]


def test_items_are_reordered_by_drag_and_by_buttons_and_dropped(visit, history):
    page = visit.open(link(history, tab="request"))
    first, second, third = (item["item_id"] for item in history)

    def asked() -> list[str]:
        answered(page)
        return json.loads(page.locator("#code-request").text_content() or "")["history"]

    page.get_by_role("button", name=f"Move {history[0]['metadata']['title']} later").click()
    expect(page.locator("#code-request")).to_contain_text(re.compile(f"{second}.*{first}.*{third}", re.DOTALL))
    page.locator("#history > li").nth(2).drag_to(page.locator("#history > li").nth(0))
    expect(page.locator("#code-request")).to_contain_text(re.compile(f"{third}.*{second}.*{first}", re.DOTALL))
    page.get_by_role("button", name=f"Remove {history[1]['metadata']['title']}").click()
    expect(page.locator("#code-request")).not_to_contain_text(second)
    assert asked() == [third, first]


def test_everything_works_from_the_keyboard(visit, history):
    page = visit.open()
    expect(page.get_by_role("button", name="Nobody yet").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the search")).to_be_focused()
    page.keyboard.press("Enter")
    search = page.get_by_role("combobox", name="Search items")
    expect(search).to_be_focused()
    for item in history:
        page.keyboard.type(item["metadata"]["title"])
        expect(page.get_by_role("option").first).to_be_visible()
        page.keyboard.press("ArrowDown")
        expect(search).to_have_attribute("aria-activedescendant", "option-0")
        page.keyboard.press("Enter")
        expect(search).to_have_value("")
    answered(page)
    page.get_by_role("button", name=f"Move {history[2]['metadata']['title']} earlier").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#history > li .entry-title").nth(1)).to_have_text(history[2]["metadata"]["title"])
    expect(page.get_by_role("button", name=f"Move {history[2]['metadata']['title']} earlier")).to_be_focused()
    page.get_by_role("tab", name="Beam tree").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel", name="Timing")).to_be_visible()
    expect(page.get_by_role("list", name="Time of the answer by stage")).to_be_visible()
    page.keyboard.type("x")
    search.focus()
    page.keyboard.type("a")
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()


def test_the_code_to_copy_gives_the_same_answer(visit, history):
    where = json.dumps({"genres": {"any_of": ["Drama", "War"]}, "year": {"gte": 1960}})
    page = visit.open(link(history, k=5, where=where, again="yes", tab="python"))
    answered(page, 5)
    ids = [item["item_id"] for item in json.loads(page.locator("#code-response").text_content() or "")["items"]]
    script = page.locator("#code-python").text_content() or ""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert [line.split()[1] for line in ran.stdout.splitlines()] == ids
    command = page.locator("#code-curl").text_content() or ""
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert [item["item_id"] for item in json.loads(ran.stdout)["items"]] == ids


def test_timing_adds_up_and_the_tree_is_not_part_of_it(visit, history):
    page = visit.open(link(history))
    answered(page)
    page.get_by_role("tab", name="Timing").click()
    expect(page.locator("#code-request")).not_to_contain_text("explain")
    expect(page.locator("#timing").get_by_role("listitem")).to_have_count(7)
    labels = page.locator("#timing .stage").evaluate_all("all => all.map(one => one.ariaLabel)")
    spent = sum(float(re.search(r": ([\d.]+) milliseconds", label)[1]) for label in labels)
    whole = float(re.match(r"([\d.]+) ms", page.locator("#timing p").text_content() or "")[1])
    assert spent == pytest.approx(whole, abs=0.2)
    page.get_by_role("tab", name="Beam tree").click()
    expect(page.get_by_role("tree")).to_be_visible()
