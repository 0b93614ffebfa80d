import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from genrec.errors import DataError
from tests.training.bench import recipe, run_stage
from tests.training.test_sequences import ROWS, written
from training.embed_collaborative import CONTEXT_POWER, co_occurrence, collaborative, ppmi
from training.prepare import STAGE
from training.recipe_data import CollaborativePart
from training.sequences import load_sequences


@given(st.lists(st.lists(st.integers(0, 4), max_size=7), max_size=4), st.integers(1, 8))
def test_pairs_count_by_the_inverse_of_their_distance(sequences: list[list[int]], window: int) -> None:
    expected = np.zeros((5, 5))
    for sequence in sequences:
        for i, left in enumerate(sequence):
            for j, right in enumerate(sequence):
                if left != right and 0 < abs(i - j) <= window:
                    expected[left, right] += 1 / abs(i - j)
    arrays = [np.array(sequence, dtype=np.int32) for sequence in sequences]
    np.testing.assert_allclose(co_occurrence(arrays, 5, window).toarray(), expected)


def test_ppmi_agrees_with_its_definition() -> None:
    counts = np.array([[0, 4.0, 1], [4, 0, 1], [1, 1, 0]])
    rows = counts.sum(axis=1)
    contexts = rows**CONTEXT_POWER / (rows**CONTEXT_POWER).sum()
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            if counts[i, j]:
                expected[i, j] = max(0.0, math.log(counts[i, j] / (rows[i] * contexts[j])))
    np.testing.assert_allclose(ppmi(sparse.csr_matrix(counts)).toarray(), expected)


def test_neighbours_in_sequences_are_neighbours_in_space(tmp_path: Path) -> None:
    sequences = load_sequences(run_stage(STAGE, recipe(), tmp_path))
    vectors = collaborative(sequences, CollaborativePart(dimensions=16), seed=1).vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.mean([unit[row] @ unit[row + 1] for row in range(47)])
    far = np.mean([unit[row] @ unit[(row + 24) % 48] for row in range(48)])
    assert near > far + 0.3


def test_held_out_interactions_have_no_say(tmp_path: Path) -> None:
    work = run_stage(STAGE, recipe(), tmp_path / "work")
    before = collaborative(load_sequences(work), CollaborativePart(), seed=1).vectors
    path = work / "interactions.parquet"
    table = pl.read_parquet(path)
    held_out = pl.col("split") != "train"
    table.with_columns(item_id=pl.when(held_out).then(pl.lit("co00")).otherwise("item_id")).write_parquet(path)
    after = collaborative(load_sequences(work), CollaborativePart(), seed=1).vectors
    assert (before == after).all()


def test_data_without_pairs_are_refused(tmp_path: Path) -> None:
    sequences = load_sequences(written(tmp_path, ROWS[4:5]))
    with pytest.raises(DataError, match="two different training items"):
        collaborative(sequences, CollaborativePart(), seed=1)
