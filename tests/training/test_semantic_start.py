"""Where item tokens begin when they begin at vectors."""

import numpy as np
import pytest

from training.semantic_start import NOISE, semantic_rows

RNG = np.random.default_rng(3)


def vectors(count: int = 400, width: int = 12) -> np.ndarray:
    return (RNG.normal(size=(count, width)) * np.linspace(3, 0.1, width)).astype(np.float32)


def start(given: np.ndarray, paths: list[list[int]] | np.ndarray, width: int, spread: float = 0.5):
    ids, rows = semantic_rows(given, np.asarray(paths), width, spread, seed=0)
    return dict(zip(ids.tolist(), rows, strict=True)), rows


@pytest.mark.parametrize("width", [12, 20])
def test_the_tokens_of_an_item_add_up_to_its_vector_where_they_can(width: int) -> None:
    """An item of its own at the last level: nothing is left over."""
    given = vectors(60)
    paths = np.column_stack([np.arange(60) // 6, 100 + np.arange(60)])
    row, _ = start(given, paths, width)
    sums = np.array([row[first] + row[second] for first, second in paths.tolist()])
    centred = given - given.mean(axis=0)
    scale = 0.5 / np.pad(centred, ((0, 0), (0, width - 12))).std()
    near = np.linalg.norm(sums[:, None] - sums[None], axis=-1)
    wanted = np.linalg.norm(centred[:, None] - centred[None], axis=-1) * scale
    assert np.abs(near - wanted).max() < 8 * NOISE * 0.5 * np.sqrt(width)
    assert np.corrcoef(near.ravel(), wanted.ravel())[0, 1] > 0.95


def test_items_spread_as_asked_whatever_their_vectors_are() -> None:
    for given in (vectors(), 1000 * vectors() + 7):
        _, rows = start(given, np.arange(400)[:, None], 12, spread=0.3)
        assert rows.std() == pytest.approx(0.3, rel=0.02)
        assert rows.dtype == np.float32


def test_of_a_narrow_row_the_widest_axes_are_kept() -> None:
    given = vectors()
    _, rows = start(given, np.arange(400)[:, None], 3)
    kept = (given - given.mean(axis=0))[:, :3]
    near = np.linalg.norm(rows[:50, None] - rows[None, :50], axis=-1)
    wanted = np.linalg.norm(kept[:50, None] - kept[None, :50], axis=-1)
    assert np.corrcoef(near.ravel(), wanted.ravel())[0, 1] > 0.95


def test_only_tokens_that_an_item_has_get_a_row_and_equal_vectors_give_different_ones() -> None:
    row, _ = start(np.ones((4, 5), dtype=np.float32), [[7, 20], [7, 21], [9, 20], [9, 22]], 5)
    assert sorted(row) == [7, 9, 20, 21, 22]
    assert len({tuple(values.tolist()) for values in row.values()}) == 5
    assert all(np.isfinite(values).all() for values in row.values())


def test_it_repeats_itself() -> None:
    given, paths = vectors(), np.column_stack([RNG.integers(0, 9, 400), RNG.integers(10, 40, 400)])
    one, other = semantic_rows(given, paths, 8, 0.3, 5), semantic_rows(given, paths, 8, 0.3, 5)
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
