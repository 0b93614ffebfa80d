"""A beam is in order, holds only numbers that can be trusted, and says how far it is proof."""

import numpy as np
import pytest

from genrec.decoding.engine import Beam
from genrec.errors import EngineError


def ranked(rows: list[int], scores: list[float], bound: float = -np.inf) -> Beam:
    return Beam.ranked(np.array(rows), np.array(scores), np.array(scores) * 3 + 1, bound)


def test_hypotheses_are_ordered_by_score_then_row() -> None:
    beam = ranked([9, 4, 7, 2, 5], [-1.0, -2.0, -1.0, -2.0, -0.5])
    assert beam.rows.tolist() == [5, 7, 9, 2, 4]
    assert beam.scores.tolist() == [-0.5, -1.0, -1.0, -2.0, -2.0]
    assert beam.log_probabilities.tolist() == [-0.5, -2.0, -2.0, -5.0, -5.0]


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(EngineError, match="not finite"):
        ranked([0, 1], [-1.0, score])


def test_an_item_that_comes_twice_is_refused() -> None:
    with pytest.raises(EngineError, match="one item twice"):
        ranked([3, 3], [-1.0, -2.0])


@pytest.mark.parametrize(("bound", "proven"), [(-np.inf, 3), (-3.5, 3), (-3.0, 3), (-2.5, 2), (-0.5, 0)])
def test_hypotheses_are_proven_down_to_the_best_that_was_pruned(bound: float, proven: int) -> None:
    beam = ranked([0, 1, 2], [-1.0, -2.0, -3.0], bound)
    assert [beam.proves(k) for k in (1, 2, 3)] == [k <= proven for k in (1, 2, 3)]


def test_a_beam_with_fewer_hypotheses_than_asked_for_holds_all_there_are() -> None:
    assert ranked([0], [-1.0]).proves(2)
