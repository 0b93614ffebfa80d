"""Recorded decodes give what decodes give. What records here is a stand-in that runs the work again, as a graph would:
into the same buffers, from the same buffers. Padding, copying and forgetting are the real thing."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from genrec.allowed import AllowedItems, ItemMask
from genrec.bundle import load_bundle
from genrec.decoding import graphs
from genrec.decoding.beam import BeamEngine
from genrec.decoding.engine import Beam, Query
from genrec.decoding.graphs import Graphs, graphs_for
from genrec.decoding.selection import Frontier
from genrec.recommender import Recommender

NUM_ITEMS = 40


class Tape:
    """Counts what is recorded; a replay overwrites the first result."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], Frontier]) -> tuple[Callable[[], None], Frontier]:
        self.recorded += 1
        result = work()
        for field in fields(result):
            getattr(result, field.name).fill_(0)  # a capture runs nothing

        def replay() -> None:
            self.replayed += 1
            again = work()
            for field in fields(result):
                getattr(result, field.name).copy_(getattr(again, field.name))

        return replay, result


@pytest.fixture
def engine(bundle_path: Path) -> BeamEngine:
    engine = Recommender.of(load_bundle(bundle_path), engine="beam").engine
    assert isinstance(engine, BeamEngine)
    return engine


@pytest.fixture
def static(engine: BeamEngine, monkeypatch: pytest.MonkeyPatch) -> BeamEngine:
    # On CPU the frontier is trimmed to what lives; a graph has fixed shapes.
    monkeypatch.setattr(Frontier, "trimmed", lambda frontier: frontier)
    return engine


def batch(engine: BeamEngine, rng: np.random.Generator, size: int, *, excluded: int = 3) -> list[Query]:
    masks = [ItemMask.everything(NUM_ITEMS), ItemMask(rng.random(NUM_ITEMS) < 0.5)]
    return [
        Query(
            rng.integers(4, 15, rng.integers(1, 30)).tolist(),
            AllowedItems.all_but(rng.integers(0, NUM_ITEMS, excluded).tolist(), masks[place % 2]),
        )
        for place in range(size)
    ]


def assert_same(one: list[object], other: list[object]) -> None:
    for left, right in zip(one, other, strict=True):
        assert isinstance(left, Beam)
        assert isinstance(right, Beam)
        assert left.rows.tolist() == right.rows.tolist()
        np.testing.assert_allclose(left.scores, right.scores, atol=1e-4)
        np.testing.assert_allclose(left.log_probabilities, right.log_probabilities, atol=1e-4)
        np.testing.assert_allclose(left.bound, right.bound, atol=1e-4)


def test_batches_of_any_size_give_what_they_give_without_a_graph(static: BeamEngine) -> None:
    tape = Tape()
    recorded = replace(static, graphs=Graphs(tape))
    rng = np.random.default_rng(0)
    for size in (1, 3, 4, 2, 5, 3, 1):
        queries = batch(static, rng, size)
        assert_same(recorded.search(queries, 6), static.search(queries, 6))
    assert tape.replayed == 7
    assert tape.recorded < 7  # sizes 3 and 4 share a shape, and the second 1 and 3 are replays


def test_a_replay_reads_the_new_batch_and_not_the_one_it_was_recorded_with(static: BeamEngine) -> None:
    tape = Tape()
    recorded = replace(static, graphs=Graphs(tape))
    rng = np.random.default_rng(1)
    first, second = batch(static, rng, 2), batch(static, rng, 2)
    found = [recorded.search(queries, 5) for queries in (first, second, first)]
    assert tape.recorded == 1
    assert_same(found[0], found[2])
    assert_same(found[1], static.search(second, 5))
    assert [beam.rows.tolist() for beam in found[0]] != [beam.rows.tolist() for beam in found[1]]


def test_the_shapes_least_used_are_forgotten(static: BeamEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MAX_GRAPHS", 2)
    tape = Tape()
    recorded = replace(static, graphs=Graphs(tape))
    queries = batch(static, np.random.default_rng(2), 1)
    for num_beams in (2, 3, 2, 4, 2, 3):
        recorded.search(queries, num_beams)
    assert tape.recorded == 4  # 3 was forgotten when 4 came, 2 never
    assert tape.replayed == 6


def test_a_frontier_that_is_not_trimmed_gives_the_same(engine: BeamEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = batch(engine, np.random.default_rng(3), 4)
    trimmed = engine.search(queries, 50)
    monkeypatch.setattr(Frontier, "trimmed", lambda frontier: frontier)
    assert_same(engine.search(queries, 50), trimmed)


def test_a_cpu_has_no_graphs(engine: BeamEngine) -> None:
    assert graphs_for(engine.device) is None
    assert engine.graphs is None
