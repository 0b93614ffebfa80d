import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.training.report.told import EVIL, EXAMPLES, MANIFEST, PREPARED, QUANTIZED, metrics
from tests.training.runs import Run
from training.report.page import Story, report_page
from training.seal import read_story

HEADINGS = [
    "What was trained on what", "Results", "Where it is good, and where not", "Training", "Semantic IDs", "Coverage",
    "Examples", "Protocol", "What to keep in mind",
]  # fmt: skip


@pytest.fixture
def story(tmp_path: Path) -> Story:
    for name in ("comparison", "buckets", "curves", "coverage", "health"):
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG" + name.encode())
    return Story(MANIFEST, metrics(), EXAMPLES, tmp_path, PREPARED, QUANTIZED, {tmp_path / "health.png": EVIL})


def replaced(story: Story, **changes: Any) -> Story:
    fields = {name: getattr(story, name) for name in Story.__dataclass_fields__}
    return Story(**{**fields, **changes})


class Structure(HTMLParser):
    """Elements that are opened and closed in order; every address that the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    return structure


def check_self_contained(page: str) -> None:
    structure = parsed(page)
    assert all(address.startswith("data:image/png;base64,") for address in structure.addresses)
    assert not structure.seen & {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video"}
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"\son\w+\s*=", re.sub(r"<style>.*?</style>|base64,[^\"]*", "", page, flags=re.DOTALL))


def test_nothing_is_fetched_and_nothing_runs(story: Story) -> None:
    page = report_page(story)
    check_self_contained(page)
    assert page.count("data:image/png") == 5


def test_the_page_of_a_run_is_self_contained_too(finished: Run) -> None:
    page = (finished.bundle / "training" / "report.html").read_text()
    check_self_contained(page)
    assert re.findall(r"<h2>(.*?)</h2>", page) == HEADINGS
    assert page == report_page(read_story_of(finished))


def read_story_of(run: Run) -> Story:
    from genrec.bundle import load_draft

    names = ("prepare", "quantize", "assemble", "evaluate")
    return read_story(load_draft(run.work / "assemble" / "draft").manifest, {name: run.work / name for name in names})


def test_sections_come_in_the_order_in_which_a_reader_asks(story: Story) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", report_page(story)) == HEADINGS


def test_it_reads_on_a_phone_and_in_print(story: Story) -> None:
    page = report_page(story)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media print" in page
    assert page.startswith('<!doctype html>\n<html lang="en">')


def test_what_users_named_cannot_become_markup(story: Story) -> None:
    manifest = MANIFEST.model_copy(update={"provenance": {"dataset": EVIL, "method": EVIL, "base_model": EVIL}})
    told = metrics(
        refit={"note": EVIL},
        baselines={EVIL: metrics()["test"]},
        differences={EVIL: metrics()["differences"]["markov"]},
    )
    page = report_page(replaced(story, manifest=manifest, metrics=told))
    check_self_contained(page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; &quot;x&quot;") >= 10


def test_the_hit_is_marked_and_a_miss_says_what_came_next(story: Story) -> None:
    page = report_page(story)
    assert '<li class="hit">hit me</li>' in page
    assert "… 12 before" in page
    assert page.count("What came next") == 1


def test_numbers_of_the_head_are_the_model_and_the_best_baseline(story: Story) -> None:
    head = report_page(story).partition("What was trained on what")[0]
    assert "<b>0.2500</b>" in head and "recall@10, test" in head
    assert "<b>0.4000</b>" in head and "best baseline: SASRec" in head
    assert "<b>-0.1500</b>" in head and ">worse<" in head
    assert "<b>75%</b>" in head


def test_facts_of_data_split_and_code_are_told(story: Story) -> None:
    page = report_page(story)
    for said in (
        "&lt;b&gt;own&lt;/b&gt;, 9,000 users, 128 items, 70,000 interactions", "1997-09-20 to 1998-04-22",
        "68,000 train, 1,000 test", "llama from scratch", "2 levels of 64, 32 codes, residual kmeans", "torch 2.13",
    ):  # fmt: skip
        assert said in page


def test_what_is_not_known_is_left_out(story: Story, tmp_path: Path) -> None:
    """An evaluation of a bundle alone: no stages, no pictures of them, one split."""
    told = {
        name: value
        for name, value in metrics().items()
        if name not in ("test", "baselines", "differences", "likelihood")
    }
    told["validation_differences"] = {}
    page = report_page(Story(MANIFEST, told, [], tmp_path / "none"))
    check_self_contained(page)
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "What was trained on what",
        "Results",
        "Coverage",
        "Protocol",
        "What to keep in mind",
    ]
    assert "validation, 1,234 users" in page


def test_what_changes_for_users_is_told_where_there_was_a_bundle_before(story: Story) -> None:
    page = report_page(replaced(story, changes=["3 items <b>", "another"]))
    assert "<h2>What changes for users</h2><ul><li>3 items &lt;b&gt;</li><li>another</li></ul>" in page


def test_a_refitted_bundle_says_so_first(story: Story) -> None:
    page = report_page(replaced(story, metrics=metrics(refit={"note": "Measured on another."})))
    assert '<p class="note">Measured on another.</p>' in page.partition("<h2>")[0]
