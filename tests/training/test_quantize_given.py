import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from tests.training.bench import write_csv
from training.quantize_given import GivenQuantizer, dense
from training.quantizer import Codes, ItemVectors
from training.recipe_quantize import GivenCodes


def quantize(path: Path | str, ids: list[str], codes: tuple[str, ...] | None = None) -> Codes:
    vectors = np.zeros((len(ids), 0), dtype=np.float32)
    return GivenQuantizer(GivenCodes(path=str(path), codes=codes)).quantize(ItemVectors(ids, vectors))


def refusal(path: Path | str, ids: list[str], codes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        quantize(path, ids, codes)
    return str(caught.value)


def write_json(folder: Path, value: object) -> Path:
    path = folder / "codes.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_codes_come_in_the_order_of_the_items_and_of_the_columns(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", "code_10,item_id,code_2", "1,b,0", "0,a,1", "1,unused,1")
    made = quantize(path, ["a", "b"])
    assert made.codes.tolist() == [[1, 0], [0, 1]]  # code_2 comes before code_10
    assert made.sizes == (2, 2)
    assert made.notes == []
    assert made.description["items_not_in_the_data"] == 1


def test_sparse_and_1_based_codes_are_renumbered_and_the_originals_kept(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", "item_id,code_0,code_1", "a,1,0", "b,2,7", "c,3,300")
    made = quantize(path, ["a", "b", "c"])
    assert made.codes.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert made.description["original_codes"] == [[1, 2, 3], [0, 7, 300]]
    assert "Level 1: 3 codes, 0 to 300, were renumbered 0 to 2." in made.notes


def test_typed_files_and_columns_of_other_names(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [7, 8], "x": [0, 1], "y": [1.0, 0.0]}).write_parquet(tmp_path / "c.parquet")
    assert quantize(tmp_path / "c.parquet", ["7", "8"], ("x", "y")).codes.tolist() == [[0, 1], [1, 0]]


def test_token_strings_are_numbered_by_their_number_not_their_spelling(tmp_path: Path) -> None:
    path = write_json(tmp_path, {"x": ["<a_2>", "<b_0>"], "y": ["<a_10>", "<b_1>"], "z": ["<a_1>", "<b_0>"]})
    made = quantize(path, ["x", "y", "z"])
    assert made.codes.tolist() == [[1, 0], [2, 1], [0, 0]]
    assert made.description["original_codes"] == [["<a_1>", "<a_2>", "<a_10>"], ["<b_0>", "<b_1>"]]
    assert len(made.notes) == 1  # level 1 already is 0, 1


@given(st.lists(st.tuples(st.integers(-5, 300), st.sampled_from(["<a_1>", "<a_02>", "b", "<|sid_9|>"])), min_size=1))
def test_renumbering_is_a_bijection_a_level(rows: list[tuple[int, str]]) -> None:
    codes, originals = dense(rows)
    assert [[originals[level][code] for level, code in enumerate(row)] for row in codes] == [list(row) for row in rows]
    for level, values in enumerate(originals):
        assert set(codes[:, level]) == set(range(len(values)))


def test_what_does_not_fit_is_refused_with_its_place(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "c.csv", "item_id,code_0", "a,0", "b,1.5")
    assert "row 2: an id or a code is empty or no whole number" in refusal(csv, ["a"])
    assert "no column 'level_1' ([quantize.given] codes.0)" in refusal(csv, ["a"], ("level_1",))
    csv = write_csv(tmp_path / "c.csv", "item_id,code_0", "a,0", "a,1")
    assert "item 'a' has more than one row" in refusal(csv, ["a"])
    csv = write_csv(tmp_path / "c.csv", "item_id,code_0", "a,0")
    assert "has no codes for 6 items ('b', 'c', 'd', 'e', 'f', …)" in refusal(csv, list("abcdefg"))
    csv = write_csv(tmp_path / "c.csv", "item_id,sid", "a,0")
    assert "quantize.given.codes" in refusal(csv, ["a"])


def test_json_of_another_shape_is_refused(tmp_path: Path) -> None:
    assert "cannot be read as codes" in refusal(tmp_path / "none.json", ["a"])
    assert "cannot be read as codes" in refusal(write_json(tmp_path, "{"), ["a"])
    assert "must be one JSON object" in refusal(write_json(tmp_path, [1]), ["a"])
    assert "must have a list of token strings" in refusal(write_json(tmp_path, {"a": [1]}), ["a"])
    assert "same number" in refusal(write_json(tmp_path, {"a": ["<a_1>"], "b": []}), ["a", "b"])
    assert "'a' occurs twice" in refusal(write_json(tmp_path, '{"a": ["<a_1>"], "a": ["<a_2>"]}'), ["a"])


def test_the_published_beauty_codes_have_their_known_collisions(shared_data: Path) -> None:
    folder = shared_data / "beauty"
    ids = sorted(pl.read_csv(folder / "items.csv", infer_schema=False)["item_id"].to_list())
    made = quantize(folder / "semantic_ids.csv", ids)
    assert made.codes.shape == (12_101, 4)
    assert len(np.unique(made.codes, axis=0)) == 12_088
