"""Made-up requests of every shape that serving meets."""

from pathlib import Path

import pytest

from genrec.decoding.engine import Beam, Query
from genrec.decoding.graphs import TOKEN_STEP
from genrec.errors import EngineError
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.warm_up import _shapes, warm_up
from tests.fakes import TinyShape, tiny_bundle


@pytest.fixture(scope="module")
def recommender(causal_bundle_path: Path) -> Recommender:
    return Recommender.load(causal_bundle_path, device="cpu")


def asked_by(
    recommender: Recommender, max_batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int, int]]:
    """(queries at once, tokens of a prompt, beams) of each search."""
    seen: list[tuple[int, int, int]] = []
    search = type(recommender.engine).search

    def watched(engine: object, queries: list[Query], num_beams: int) -> list[Beam | EngineError]:
        seen.append((len(queries), len(queries[0].prompt), num_beams))
        return search(engine, queries, num_beams)  # type: ignore[arg-type]

    monkeypatch.setattr(type(recommender.engine), "search", watched)
    warm_up(recommender, max_batch_rows)
    return seen


def test_on_a_cpu_the_shortest_the_longest_and_the_largest(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = asked_by(recommender, 60, monkeypatch)
    assert [(queries, beams) for queries, _, beams in seen] == [(1, 6), (1, 6), (10, 6)]
    shortest, longest, largest = (tokens for _, tokens, _ in seen)
    assert shortest < longest == largest


def test_a_batch_of_less_than_one_request_is_one_request(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {queries for queries, _, _ in asked_by(recommender, 1, monkeypatch)} == {1}


def test_a_catalog_smaller_than_a_history_is_enough(tmp_path: Path) -> None:
    small = Recommender.load(tiny_bundle(tmp_path, TinyShape(num_items=12, max_history_items=30)), device="cpu")
    warm_up(small, 12)


def test_on_a_gpu_every_length_of_prompt_that_differs_and_every_power_of_two(recommender: Recommender) -> None:
    class OnGpu:
        bundle = recommender.bundle
        device = "cuda:0"

    shapes = list(_shapes(OnGpu(), 10))  # type: ignore[arg-type]
    encode, longest = recommender.bundle.encoder.encode, recommender.bundle.encoder.prompt.max_history_items
    steps = {-(-len(encode([0] * items)) // TOKEN_STEP) for items in range(1, longest + 1)}
    assert {-(-len(encode([0] * items)) // TOKEN_STEP) for items, _ in shapes} == steps
    assert {requests for _, requests in shapes} == {1, 2, 4, 8, 16}, "ten are padded to sixteen"
    assert len(shapes) == len(set(shapes)) == 5 * len(steps)


def test_a_model_that_fails_at_it_is_told(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(recommender.engine), "search", lambda _, queries, num_beams: [EngineError("x")] * len(queries)
    )
    with pytest.raises(EngineError):
        warm_up(recommender, 60)


def test_it_changes_no_answer(recommender: Recommender) -> None:
    before = recommender.recommend([Request(["i1", "i2"])])[0].scored_list
    warm_up(recommender, 60)
    assert recommender.recommend([Request(["i1", "i2"])])[0].scored_list == before
