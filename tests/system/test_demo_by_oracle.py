"""A thousand real histories of the demo bundle are answered by our engine as transformers alone answers them.

The oracle is an independent reading of the bundle: it imports nothing of ours, and is slow (some ten requests a second
on two cores). A filter is given to it as the list of what the filter excludes, worked out here from the metadata.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from genrec.filters import Filter
from genrec.recommender import Recommender, Request
from tests.system.oracle import ORACLE
from training.sequences import load_sequences

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles/demo"
BATCH = 32

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ORACLE.is_file(), reason=f"the oracle is not at {ORACLE}"),
    pytest.mark.skipif(not BUNDLE.is_dir(), reason="no demo bundle: `make bundle` trains it"),
]

FILTERS: list[tuple[Filter, Callable[[dict[str, Any]], bool]]] = [
    (
        Filter(where={"genres": {"any_of": ["Drama", "Comedy"]}, "year": {"gte": 1990}}),
        lambda item: bool({"Drama", "Comedy"} & set(item["genres"] or ())) and (item["year"] or 0) >= 1990,
    ),
    (Filter(where={"genres": {"any_of": ["Western"]}}), lambda item: "Western" in (item["genres"] or ())),
    (
        Filter(include_ids=[str(number) for number in range(1, 400, 7)]),
        lambda item: item["item_id"] in {str(number) for number in range(1, 400, 7)},
    ),
]


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    loaded = Recommender.load(BUNDLE, device="cpu", engine="beam")
    assert loaded.engine_name == "beam"
    return loaded


def histories(number: int) -> list[list[str]]:
    sequences = load_sequences(ROOT / "runs/demo/prepare")
    cases = [*sequences.test_cases(), *sequences.validation_cases()][:number]
    assert len(cases) == number
    return [[sequences.item_ids[row] for row in case.history] for case in cases]


def assert_all_agree(
    recommender: Recommender, requests: Sequence[Request], excluded: Sequence[Sequence[str]], scratch: Path, *flags: str
) -> None:
    """Answer in batches, and let the oracle answer the same with lists of what to exclude."""
    asked, answers = scratch / "requests.jsonl", scratch / "answers.jsonl"
    with asked.open("w") as stream:
        for request, exclude in zip(requests, excluded, strict=True):
            stream.write(json.dumps({"history": list(request.history), "exclude": list(exclude)}) + "\n")
    with answers.open("w") as stream:
        for start in range(0, len(requests), BATCH):
            for answer in recommender.recommend(requests[start : start + BATCH]):
                items = [{"item_id": item_id, "score": score} for item_id, score in answer.scored_list]
                stream.write(json.dumps({"items": items}) + "\n")
    verdict = subprocess.run(
        [sys.executable, ORACLE, BUNDLE, asked, "--compare", answers, *flags], capture_output=True, text=True
    )
    print(verdict.stdout)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert f"agree {len(requests)}/{len(requests)}" in verdict.stdout


def test_a_thousand_histories_are_answered_as_transformers_does(recommender: Recommender, tmp_path: Path) -> None:
    requests = [Request(history, k=10, exclude_history=False) for history in histories(1000)]
    assert_all_agree(recommender, requests, [()] * 1000, tmp_path)


def test_a_thousand_histories_are_answered_without_their_own_items(recommender: Recommender, tmp_path: Path) -> None:
    requests = [Request(history, k=10, exclude_history=True) for history in histories(1000)]
    assert_all_agree(recommender, requests, [()] * 1000, tmp_path, "--exclude-history")


def test_filtered_histories_are_answered_as_if_the_rest_were_excluded(recommender: Recommender, tmp_path: Path) -> None:
    catalog = recommender.bundle.catalog
    items = [{"item_id": catalog.item_id(row), **catalog.describe(row)} for row in range(len(catalog))]
    outside = [[item["item_id"] for item in items if not allows(item)] for _, allows in FILTERS]
    assert [len(catalog) - len(gone) for gone in outside] == [pytest.approx(n, rel=0.9) for n in (700, 27, 57)]
    requests, excluded = [], []
    for place, history in enumerate(histories(240)):
        kind = place % len(FILTERS)  # every batch mixes them
        requests.append(Request(history, k=10, exclude_history=True, filter=FILTERS[kind][0]))
        excluded.append(outside[kind])
    assert_all_agree(recommender, requests, excluded, tmp_path, "--exclude-history")
