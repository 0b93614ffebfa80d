"""Codes of a foreign file: each with its own token, and unique. Whole imports are in test_import_checkpoint.py."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from training.import_codes import ImportedCodes, OnCollision, read_imported_codes

SPELLING = "<{letter}_{code}>"
VOCABULARY = {f"<{letter}_{code}>": 1000 * level + code for level, letter in enumerate("abc") for code in range(60)}


def read(rows: list[tuple[int, ...]], folder: Path, on_collision: OnCollision = "refuse") -> ImportedCodes:
    """Items are called i00, i01, …, in the order of the rows."""
    columns = ",".join(f"code_{level}" for level in range(len(rows[0])))
    lines = [f"i{number:02},{','.join(map(str, row))}" for number, row in enumerate(rows)]
    (folder / "codes.csv").write_text("\n".join([f"item_id,{columns}", *lines]) + "\n")
    ids = [f"i{number:02}" for number in range(len(rows))]
    return read_imported_codes(folder / "codes.csv", ids, SPELLING, VOCABULARY, on_collision)


codes = st.tuples(st.sampled_from([3, 17]), st.sampled_from([0, 5]), st.sampled_from(range(0, 60, 6)))


@given(st.lists(codes, min_size=1, max_size=25))
def test_reassigned_ids_are_unique_and_all_else_is_as_it_was(rows: list[tuple[int, int, int]]) -> None:
    with TemporaryDirectory() as folder:
        try:
            found = read(rows, Path(folder), "reassign")
        except DataError as error:
            assert "are taken" in str(error)
            most = max([row[:2] for row in rows].count(prefix) for prefix in {row[:2] for row in rows})
            assert most > len({row[2] for row in rows})
            return
    paths = [tuple(found.token_ids[level][code] for level, code in enumerate(row)) for row in found.codes.tolist()]
    assert len(set(paths)) == len(rows)
    moved = {item.item_id: item for item in found.reassigned}
    for number, (row, path) in enumerate(zip(rows, paths, strict=True)):
        trained = tuple(VOCABULARY[f"<{letter}_{code}>"] for letter, code in zip("abc", row, strict=True))
        assert path[:2] == trained[:2]
        is_twin = row in rows[:number]
        assert (f"i{number:02}" in moved) == is_twin == (path != trained)
        if is_twin:
            item = moved[f"i{number:02}"]
            assert item.shared_with == f"i{rows.index(row):02}"
            assert (item.given, item.now[:2]) == (row, row[:2])
            assert VOCABULARY[f"<c_{item.now[2]}>"] == path[2]
            assert item.now[2] in {code for _, _, code in rows}


def test_the_smallest_free_codes_are_given_by_the_order_of_ids(tmp_path: Path) -> None:
    found = read([(1, 6), (1, 6), (1, 0), (1, 6), (2, 12), (2, 18)], tmp_path, "reassign")
    assert [(item.item_id, item.now) for item in found.reassigned] == [("i01", (1, 12)), ("i03", (1, 18))]


def test_one_level_alone_is_a_prefix_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 2 codes of the last level are taken"):
        read([(1,), (1,), (4,)], tmp_path, "reassign")


def test_more_levels_than_letters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text(json.dumps({"i": [f"<{level}>" for level in range(27)]}))
    with pytest.raises(DataError, match="27 levels; a bundle has at most 26"):
        read_imported_codes(tmp_path / "codes.json", ["i"], SPELLING, VOCABULARY, "refuse")
