import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from genrec.errors import DataError
from tests.training.bench import TOY, recipe, run_stage
from tests.training.test_quantize import codes_of
from training import embed, prepare, quantize
from training.codebooks import Codebooks
from training.quantizer import CodeArray, FloatArray, SavedQuantizer

LEARNT: dict[str, dict[str, Any]] = {
    "residual_kmeans": {},
    "product": {},
    "rqvae": {"rqvae": {"epochs": 5, "hidden": [16], "latent": 8}},
}


def saved(work: Path, embed_parts: list[str], **section: Any) -> tuple[SavedQuantizer, FloatArray, CodeArray]:
    made = recipe(TOY, embed={"parts": embed_parts}, quantize=section)
    for stage in (prepare.STAGE, embed.STAGE, quantize.STAGE):
        run_stage(stage, made, work)
    vectors = load_file(work / "embed" / "vectors.safetensors")["vectors"]
    return SavedQuantizer.load(work / "quantize"), vectors, codes_of(work / "quantize")


def grid(spare: int = 2) -> SavedQuantizer:
    """Two levels of 3 codes on a line, hundreds and tens, and a collision level if there are spare codes."""
    books = tuple(np.array([[0], [1], [2]], dtype=np.float32) * scale for scale in (100, 10))
    sizes = (3, 3, spare) if spare else (3, 3)
    return SavedQuantizer("residual_kmeans", sizes, bool(spare), Codebooks(books), 0, Path("saved"))


def at(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float32)[:, None]


def taken(*rows: tuple[int, ...]) -> CodeArray:
    return np.array(rows, dtype=np.int32)


@pytest.mark.parametrize("method", LEARNT)
def test_the_saved_quantizer_gives_published_items_the_codes_that_they_have(tmp_path: Path, method: str) -> None:
    section = {"method": method, "codebook_sizes": [6, 6], **LEARNT[method]}
    quantizer, vectors, codes = saved(tmp_path, ["tfidf", "collaborative"], **section)
    assert quantizer.has_collision_level
    first = codes[:, -1] == 0
    assert first.sum() > 10
    # With nothing taken each comes first to its place, as the most popular of its group did.
    for row in np.flatnonzero(first):
        found = quantizer.assign(vectors[row : row + 1], np.empty((0, 3), dtype=np.int32))
        assert found[0].tolist() == codes[row].tolist()


@pytest.mark.parametrize("policy", ["level", "reassign", "nearest"])
def test_new_items_find_a_place_of_their_own_and_nobody_moves(tmp_path: Path, policy: str) -> None:
    quantizer, vectors, codes = saved(tmp_path, ["tfidf"], codebook_sizes=[8, 16], collisions=policy)
    new = quantizer.assign(vectors, codes)
    everything = np.concatenate([codes, new])
    assert len(np.unique(everything, axis=0)) == 2 * len(codes)
    assert (new >= 0).all()
    assert (new < quantizer.sizes).all()
    assert (quantizer.assign(vectors, codes) == new).all()


def test_a_new_item_takes_the_smallest_free_collision_code_then_a_spare_then_the_next_prefix() -> None:
    found = grid().assign(at(111, 112, 113), taken((1, 1, 0)))
    assert found.tolist() == [[1, 1, 1], [1, 2, 0], [1, 2, 1]]


def test_without_a_collision_level_a_new_item_takes_the_nearest_free_last_code() -> None:
    quantizer = grid(spare=0)
    assert quantizer.assign(at(101), taken((1, 1), (1, 2))).tolist() == [[1, 0]]
    assert quantizer.assign(at(114), taken((1, 0), (1, 1), (2, 2))).tolist() == [[1, 2]]
    # All of the prefix are taken: the next-nearest prefix, and there the last code nearest to what is left.
    assert quantizer.assign(at(114), taken((1, 0), (1, 1), (1, 2))).tolist() == [[2, 0]]


def test_a_last_code_that_some_item_has_comes_before_one_that_no_model_has_learnt() -> None:
    assert grid(spare=0).assign(at(111), taken((0, 0), (1, 1))).tolist() == [[1, 0]]
    assert grid(spare=0).assign(at(111), taken((1, 0), (1, 1))).tolist() == [[1, 2]]


@given(
    st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), max_size=9),
    st.lists(st.floats(-50, 300, width=16), max_size=9),
)
@settings(deadline=None)
def test_assigned_codes_are_free_within_the_sizes_and_the_same_again(
    published: set[tuple[int, int, int]], values: list[float]
) -> None:
    before = np.array(sorted(published), dtype=np.int32).reshape(-1, 3)
    found = grid().assign(at(*values), before)
    assert (found < (3, 3, 2)).all()
    assert len({*map(tuple, found.tolist()), *published}) == len(values) + len(published)
    assert (grid().assign(at(*values), before) == found).all()


def test_when_nothing_is_free_the_error_says_what_to_mend() -> None:
    every = taken(*((first, second) for first in range(3) for second in range(3)))
    with pytest.raises(DataError, match=r"item 1 .* all 3 codes of the last level .* 4 prefixes.*codebook_sizes"):
        grid(spare=0).assign(at(5), every)


def test_random_codes_are_drawn_again_for_new_items(tmp_path: Path) -> None:
    quantizer, vectors, codes = saved(tmp_path, ["tfidf"], method="random", codebook_sizes=[4, 4])
    new = quantizer.assign(vectors, codes)
    assert len(np.unique(np.concatenate([codes, new]), axis=0)) == 2 * len(codes)
    assert len(np.unique(new[:, 0])) == 4


def test_given_codes_get_centroids_where_there_are_vectors_and_lead_nowhere_where_there_are_none(
    tmp_path: Path,
) -> None:
    ids = [f"{genre}{number:02d}" for genre in ("co", "cr", "dr", "we") for number in range(12)]
    lines = ["item_id,code_0,code_1", *(f"{item},{row // 12},{row % 12}" for row, item in enumerate(ids))]
    (tmp_path / "codes.csv").write_text("\n".join(lines) + "\n")
    section = {"method": "given", "given": {"path": str(tmp_path / "codes.csv")}}
    quantizer, vectors, codes = saved(tmp_path / "with", ["tfidf"], **section)
    # A new item like the Western of row 40 goes to the Westerns, as long as there is room among them.
    without_one = np.delete(codes, 41, axis=0)
    assert quantizer.assign(vectors[40:41], without_one).tolist() == [[3, 5]]
    quantizer, _, codes = saved(tmp_path / "without", [], **section)
    with pytest.raises(DataError, match=r"has no codebooks: its codes came from a file.*embed\.parts"):
        quantizer.assign(vectors, codes)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing says how its codes were made"):
        SavedQuantizer.load(tmp_path)
    path = tmp_path / "quantizer.json"
    for text, sentence in (
        ("{", "cannot be read"),
        ("[]", "not one JSON object"),
        ('{"method": "random"}', "does not describe a quantizer"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=sentence):
            SavedQuantizer.load(tmp_path)
    path.write_text(json.dumps({"method": "x", "codebook_sizes": [3, 4, 2], "has_collision_level": True}))
    grid().codebooks.save(tmp_path / "codebooks.safetensors")  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"levels of \[3, 3\] codes, .*\[3, 4, 2\] with a collision level"):
        SavedQuantizer.load(tmp_path)
    with pytest.raises(DataError, match=r"shape \(1, 2\) are not of the 3 levels"):
        grid().assign(at(1), taken((0, 0)))
