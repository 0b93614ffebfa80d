import numpy as np
import pytest

from genrec.errors import DataError
from training.quantize_free import ByChance, place


def test_places_by_chance_fill_a_level_and_then_end() -> None:
    seeker = ByChance(sizes=(3,), has_collision_level=False, seed=1)
    found = place(seeker, 2, np.array([[1]], dtype=np.int32), (3,))
    assert sorted(found[:, 0].tolist()) == [0, 2]
    with pytest.raises(DataError, match="item 3 of those to be placed"):
        place(seeker, 3, np.array([[1]], dtype=np.int32), (3,))


def test_by_chance_a_collision_level_is_filled_from_below() -> None:
    seeker = ByChance(sizes=(1, 4), has_collision_level=True, seed=1)
    assert place(seeker, 3, np.array([[0, 1]], dtype=np.int32), (1, 4)).tolist() == [[0, 0], [0, 2], [0, 3]]


def test_the_draw_follows_the_seed() -> None:
    nobody = np.empty((0, 2), dtype=np.int32)
    first, again, other = (place(ByChance((50, 50), False, seed), 20, nobody, (50, 50)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
