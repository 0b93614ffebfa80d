"""What docs/operations.md says in numbers is what the code computes, and what it says of catalogs in parts is so."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.capacity_plan import GIB, Machine, Process, plan
from benchmarks.catalog_memory import MAX_ID_BYTES, CatalogSize, limits, resident
from genrec import Recommender, Request
from genrec.allowed import ItemMask
from genrec.availability import Availability
from tests.fakes import tiny_bundle

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
MACHINE = Machine(64, 256 * GIB)


def cells(section: str, first: str) -> list[str]:
    """The one row below a heading that begins so, without its first cell."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    [row] = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", text, re.MULTILINE)
    return [cell.strip().strip("*") for cell in row.split("|")]


@pytest.mark.parametrize("exponent", [5, 6, 7, 8, 9])
def test_the_memory_of_a_catalog_is_what_the_arithmetic_gives(exponent):
    size = CatalogSize(10**exponent)
    stays, more = (sum(part.bytes for part in parts) for parts in (resident(size), limits(size)))
    for expected, said in zip((stays, stays + more), cells("Memory", f"10^{exponent}"), strict=True):
        number, unit = said.replace(",", " ").split()[:2]
        assert float(number) * {"MiB": 2**20, "GiB": 2**30}[unit] == pytest.approx(expected, rel=0.03)


def test_bytes_an_item_are_those_of_ten_million():
    size = CatalogSize(10**7)
    found = {part.name: part.bytes / size.num_items for part in (*resident(size), *limits(size))}
    rows = {
        "item ids": ["item ids"],
        "codes": ["codes"],
        "popularity": ["popularity"],
        "metadata": ["metadata"],
        "`ids.marisa`": ["ids.marisa"],
        "token paths": ["token paths"],
        "trie": ["trie: children", "trie: tokens", "trie: first leaves"],
        "engine": ["engine: columns", "engine: parents"],
        "what may be answered": ["what may be answered"],
        "order by popularity": ["order by popularity"],
        "title search": ["title search"],
        "masks of filters": ["masks of filters"],
        "tables of living nodes": ["tables of living nodes"],
        "lists as numbers": ["lists as numbers"],
        "items off": ["items off"],
    }
    assert sorted(part for parts in rows.values() for part in parts) == sorted(found)
    said = {name: int(cells("Memory", name)[-1]) for name in rows}
    assert said == {name: round(sum(found[part] for part in parts)) for name, parts in rows.items()}
    stays = round(sum(part.bytes for part in resident(size)) / size.num_items)
    assert [int(cells("Memory", f"**{name}**")[-1]) for name in ("stays", "at most")] == [
        stays,
        round(sum(found.values())),
    ]


@pytest.mark.parametrize("exponent", [3, 5, 7])
@pytest.mark.parametrize(("column", "items"), [(0, 10**5), (1, 10**7), (2, 10**8)])
def test_machines_are_what_the_plan_gives(exponent, column, items):
    regions = 10 if column == 2 else 1
    process = Process(400, 0.6, 2, 600 * 2**20, bundles=2)
    found = plan(10**exponent / regions, CatalogSize(items), process, MACHINE, zones=3)
    said = cells("Machines", f"10^{exponent}")[column]
    number = re.search(r"10 × ([\d,]+)" if regions > 1 else r"([\d,]+)", said)
    assert int(number[1].replace(",", "")) == found.machines


def test_the_largest_list_of_ids_is_the_one_the_page_names():
    assert f"{MAX_ID_BYTES // 13 // 10**6} million ids of 13 bytes" in PAGE
    assert f"of 8 bytes, {MAX_ID_BYTES // 8 // 10**6} million fit" in " ".join(PAGE.split())


def test_proven_answers_of_parts_merge_by_score_into_that_of_the_whole(tmp_path):
    whole = Recommender.load(tiny_bundle(tmp_path), engine="beam")
    catalog = whole.bundle.catalog
    half = catalog.codes[:, 0] % 2 == 0
    parts = [replace(whole, availability=Availability(1, ItemMask(mask))) for mask in (half, ~half)]
    history = [catalog.item_id(row) for row in (0, len(catalog) // 2, len(catalog) - 1)]
    request = Request(history, k=4, prove_exact=True, exclude_history=False)
    [expected], *answers = (one.recommend([request]) for one in (whole, *parts))
    assert all(answer.exact for [answer] in answers)
    found = sorted((item for [answer] in answers for item in answer.items), key=lambda item: -item.score)[:4]
    assert [item.item_id for item in found] == [item.item_id for item in expected.items]
    assert [item.score for item in found] == pytest.approx([item.score for item in expected.items], abs=1e-4)
    ratios = [one.probability / two.probability for one, two in zip(found, expected.items, strict=True)]
    assert np.min(ratios) > 1.0  # of fewer items each is likelier: probabilities of parts do not compare


def test_a_part_without_the_history_would_score_something_else(tmp_path):
    whole = Recommender.load(tiny_bundle(tmp_path), engine="beam")
    catalog = whole.bundle.catalog
    ids = [catalog.item_id(row) for row in range(0, len(catalog), 3)]
    full, dropped = (
        whole.recommend([Request(history, k=1, exclude_history=False)])[0] for history in (ids, [*ids[:1], "elsewhere"])
    )
    assert dropped.unknown_items == ("elsewhere",)
    assert full.items[0].score != pytest.approx(dropped.items[0].score, abs=1e-4)
