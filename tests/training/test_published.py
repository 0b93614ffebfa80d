from pathlib import Path

import numpy as np

from training.published import PublishedIds, read_retired

IDS = PublishedIds(["a", "b", "c"], np.array([[0, 1], [0, 2], [3, 1]], dtype=np.int32))


def test_rows_are_found_by_id_and_minus_one_is_nobody() -> None:
    assert IDS.rows_of(["c", "x", "a"]).tolist() == [2, -1, 0]
    assert IDS.rows_of([]).tolist() == []


def test_the_ids_of_others_are_left() -> None:
    left = IDS.without({"b", "x"})
    assert list(left.item_ids) == ["a", "c"]
    assert left.codes.tolist() == [[0, 1], [3, 1]]


def test_two_lists_are_one_after_the_other() -> None:
    both = IDS.without({"c"}).and_those(IDS.without({"a", "b"}))
    assert list(both.item_ids) == ["a", "b", "c"]
    assert both.codes.tolist() == IDS.codes.tolist()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    IDS.write(tmp_path / "retired.parquet")
    read = read_retired((tmp_path / "retired.parquet").read_bytes(), 2)
    assert list(read.item_ids) == list(IDS.item_ids)
    assert (read.codes == IDS.codes).all() and read.codes.dtype == np.int32


def test_a_bundle_that_nobody_left_has_none() -> None:
    none = read_retired(None, 3)
    assert list(none.item_ids) == [] and none.codes.shape == (0, 3)
