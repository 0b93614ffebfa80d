from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.averaging import Soup, stir


class Point(torch.nn.Module):
    """A model of one trained number, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Parameter(torch.full((1,), 7.0), requires_grad=False)

    def put(self, checkpoint: Path) -> None:
        with torch.no_grad():
            self.place.fill_(float(checkpoint.name))


def soup_of(places: list[float], target: float) -> tuple[Point, Soup]:
    """The nearer to the target the better."""
    model = Point()
    ordered = sorted(places, key=lambda place: abs(place - target))
    paths = [Path(str(place)) for place in ordered]
    return model, stir(model, paths, load=model.put, score=lambda: -abs(model.place.item() - target))


def test_checkpoints_on_either_side_are_averaged() -> None:
    model, soup = soup_of([1.0, 4.0], target=2.4)
    assert model.place.item() == 2.5
    assert [path.name for path in soup.members] == ["1.0", "4.0"] and soup.tried == 2
    assert soup.scores == pytest.approx((-1.4, -0.1))
    assert model.frozen.item() == 7.0


def test_one_that_makes_it_worse_is_left_out() -> None:
    model, soup = soup_of([1.0, 4.0, 100.0], target=2.4)
    assert model.place.item() == 2.5 and len(soup.members) == 2 and soup.tried == 3


@given(st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=6), st.floats(-9, 9))
def test_it_is_never_worse_than_the_best_alone_and_is_the_mean_of_its_members(
    places: list[float], target: float
) -> None:
    model, soup = soup_of(places, target)
    assert list(soup.scores) == sorted(soup.scores)
    mean = sum(float(path.name) for path in soup.members) / len(soup.members)
    assert model.place.item() == pytest.approx(mean, abs=1e-6)
    assert abs(model.place.item() - target) <= min(abs(place - target) for place in places) + 1e-6


def test_the_mean_of_equal_weights_is_these_weights_bit_for_bit() -> None:
    model = Point()

    def load(checkpoint: Path) -> None:
        with torch.no_grad():
            model.place.fill_(0.1)

    scores = iter([1.0, 2.0, 3.0])
    soup = stir(model, [Path("a"), Path("b"), Path("c")], load=load, score=lambda: next(scores))
    assert len(soup.members) == 3 and torch.equal(model.place, torch.full((1,), 0.1))
