import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genrec.errors import InputError
from genrec.semantic_id import Catalog
from tests.training.lifecycle import NEW, Later
from tests.training.runs import Run
from training.churn import CHURN, STAGE, items_changed, lists_changed


def catalog(**codes: tuple[int, int]) -> Catalog:
    return Catalog(
        pa.array(list(codes)), np.array(list(codes.values()), dtype=np.int32), np.zeros(len(codes), int), pa.table({})
    )


def test_items_are_counted_and_a_moved_id_is_seen() -> None:
    old = catalog(a=(0, 0), b=(0, 1), c=(1, 0))
    new = catalog(a=(0, 0), b=(2, 2), d=(1, 1), e=(3, 3))
    assert items_changed(old, new) == {"kept": 2, "added": 2, "removed": 1, "ids_kept": 1}
    assert items_changed(old, old) == {"kept": 3, "added": 0, "removed": 0, "ids_kept": 3}
    assert items_changed(old, catalog(x=(0, 0))) == {"kept": 0, "added": 1, "removed": 3, "ids_kept": 0}


def test_changes_are_counted_without_order_and_the_first_place_by_itself() -> None:
    old = [np.array([1, 2, 3]), np.array([1, 2, 3])]
    assert lists_changed(old, [np.array([2, 1, 3]), np.array([1, 2, 4])]) == {
        "places": 10, "mean_items_changed": 0.5, "share_with_a_change": 0.5, "share_with_another_first": 0.5,
    }  # fmt: skip


def test_what_nobody_sees_is_no_change() -> None:
    old, new = np.arange(20), np.append(np.arange(10), np.arange(30, 40))
    assert lists_changed([old], [new])["mean_items_changed"] == 0


def test_an_item_that_is_not_in_the_data_any_more_is_a_change() -> None:
    assert lists_changed([np.array([-1, 2])], [np.array([-1, 2])])["mean_items_changed"] == 1
    assert lists_changed([np.array([-1, 2])], [np.array([5, 2])])["mean_items_changed"] == 1


def test_the_bundle_holds_the_report(finished: Run, gone_on: Later) -> None:
    churn = json.loads((gone_on.bundle / "training" / CHURN).read_text())
    assert churn["items"] == {"kept": 47, "added": len(NEW), "removed": 1, "ids_kept": 47}
    assert churn["reserved_ids"] == 1
    assert churn["lists"]["places"] == 10 and churn["lists"]["users"] == 40
    assert 0 <= churn["lists"]["mean_items_changed"] <= 10
    for side in ("base", "new"):
        assert 0 <= churn["metrics"][side]["recall@10"]["value"] <= 1
    lead = churn["metrics"]["new"]["recall@10"]["value"] - churn["metrics"]["base"]["recall@10"]["value"]
    assert churn["difference"]["recall@10"]["value"] == pytest.approx(lead, abs=1e-5)
    measured = json.loads((gone_on.bundle / "training" / "metrics.json").read_text())
    assert churn["metrics"]["new"]["recall@10"] == measured["test"]["recall@10"]  # the same users, the same answers
    assert any("of those kept have the semantic ID they had" in line for line in gone_on.lines)


def test_a_run_from_scratch_has_nothing_to_compare_with(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names none"):
        finished.stage(STAGE, tmp_path / "churn")
