"""A search that asks for proof ends with the best items there are or with its budget, and claims what it knows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.engine import Beam, Query, Scores
from genrec.decoding.prove import Search, search_proven
from genrec.errors import EngineError
from genrec.recommender import Recommender
from tests import oracle
from tests.fakes import random_codes

LEVELS = 3
SIZES = (4, 4, 4)
WORDS = 7
"""Of the vocabulary; the tokens from 4 on are no item's, and take their share of the probability."""
BREAKS = 13
"""A prompt that the model fails at."""
NUM_ITEMS = 30


class Tables:
    """An engine without a model: the distribution after a prefix is a table, drawn from the prompt and the prefix.

    Attributes:
        calls: (width, prompts) of each search.
    """

    name = "tables"

    def __init__(self, seed: int = 0, sharpness: float = 2.0) -> None:
        self.sharpness = sharpness
        self.codes = random_codes(np.random.default_rng(seed), NUM_ITEMS, SIZES)
        self.codes = self.codes[np.lexsort(self.codes.T[::-1])]
        self.calls: list[tuple[int, list[int]]] = []

    def log_probs(self, prompt: int, prefix: tuple[int, ...]) -> npt.NDArray[np.float64]:
        logits = np.random.default_rng([prompt, len(prefix), *prefix]).normal(0.0, self.sharpness, WORDS)
        return logits - np.logaddexp.reduce(logits)

    def sums(self, prompt: int) -> npt.NDArray[np.float64]:
        """Of every row, one by one."""
        paths = [tuple(path) for path in self.codes.tolist()]
        return np.array(
            [sum(self.log_probs(prompt, path[:level])[path[level]] for level in range(LEVELS)) for path in paths]
        )

    def search(self, queries: Sequence[Query], num_beams: int) -> list[Beam | EngineError]:
        self.calls.append((num_beams, [query.prompt[0] for query in queries]))
        return [self._search(query, num_beams) for query in queries]

    def _search(self, query: Query, num_beams: int) -> Beam | EngineError:
        if query.prompt[0] == BREAKS:
            return EngineError("the model gave NaN")
        rows = query.allowed.select(np.arange(NUM_ITEMS))
        paths = {tuple(self.codes[row].tolist()): int(row) for row in rows}
        kept: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        bound = -np.inf
        for level in range(LEVELS):
            alive = {path[: level + 1] for path in paths}
            grown = [
                (total + float(self.log_probs(query.prompt[0], prefix)[code]), (*prefix, code))
                for total, prefix in kept
                for code in range(SIZES[level])
                if (*prefix, code) in alive
            ]
            grown.sort(key=lambda one: (-one[0], one[1]))
            kept = grown[:num_beams]
            bound = max([bound, *(total for total, _ in grown[num_beams:])])
        sums = np.array([total for total, _ in kept])
        found = np.array([paths[path] for _, path in kept])
        return Beam.ranked(found, sums / LEVELS, np.zeros(len(found)), bound / LEVELS)

    def score(self, query: Query, rows: npt.NDArray[np.int64]) -> Scores:
        raise NotImplementedError  # a proof only searches; if it ever scored, the test should stop here


def asked(
    prompt: int, k: int, num_beams: int, max_beams: int, without: Sequence[int] = (), num_items: int = NUM_ITEMS
) -> Search:
    allowed = AllowedItems.all_but(without, ItemMask.everything(num_items))
    return Search(Query([prompt], allowed), k, num_beams, max_beams)


def best_rows(engine: Tables, search: Search) -> list[int]:
    """The k best allowed rows by brute force."""
    sums = engine.sums(search.query.prompt[0])
    rows = search.query.allowed.select(np.arange(NUM_ITEMS))
    return rows[np.lexsort((rows, -sums[rows]))][: search.k].tolist()


def beam_of(outcome: Beam | EngineError) -> Beam:
    assert isinstance(outcome, Beam)
    return outcome


cases = st.tuples(
    st.integers(0, 10**6),  # catalog
    st.lists(st.tuples(st.integers(14, 10**6), st.integers(1, 6), st.integers(0, 20)), min_size=1, max_size=4),
    st.floats(0.1, 6.0),
)


@given(cases)
@settings(deadline=None, max_examples=300)
def test_whatever_is_proven_is_what_brute_force_finds(case):
    seed, requests, sharpness = case
    engine = Tables(seed, sharpness)
    chance = np.random.default_rng(seed)
    searches = [
        asked(prompt, k, k, 64 if place % 2 else 2 * k, chance.permutation(NUM_ITEMS)[:gone].tolist())
        for place, (prompt, k, gone) in enumerate(requests)
    ]
    for search, outcome in zip(searches, search_proven(engine, searches), strict=True):
        beam = beam_of(outcome)
        if search.max_beams >= NUM_ITEMS:
            assert beam.proves(search.k), "a beam as wide as the allowed catalog proves everything"
        if beam.proves(search.k):
            assert beam.rows[: search.k].tolist() == best_rows(engine, search)


@given(st.integers(0, 10**6), st.integers(14, 10**6), st.integers(1, 5), st.floats(0.1, 6.0))
@settings(deadline=None, max_examples=300)
def test_a_beam_of_one_over_the_kth_probability_always_proves(seed, prompt, k, sharpness):
    engine = Tables(seed, sharpness)
    kth = np.sort(engine.sums(prompt))[-k]
    enough = int(np.ceil(np.exp(-kth) * (1 - 1e-9)))
    beam = beam_of(search_proven(engine, [asked(prompt, k, max(k, enough), 0)])[0])
    assert beam.proves(k)


def test_a_beam_grows_by_four_until_it_proves_and_no_further():
    engine = Tables(sharpness=0.2)
    [outcome] = search_proven(engine, [asked(20, 3, 3, 1024)])
    widths = [width for width, _ in engine.calls]
    assert widths == [3, 12, 48][: len(widths)]
    assert len(widths) > 1
    assert beam_of(outcome).proves(3)
    assert not any(beam_of(engine.search([asked(20, 3, 3, 0).query], width)[0]).proves(3) for width in widths[:-1])


def test_a_budget_ends_it_with_the_widest_beam_it_pays_for_and_without_proof():
    engine = Tables(sharpness=0.2)
    [outcome] = search_proven(engine, [asked(20, 3, 3, 5)])
    assert [width for width, _ in engine.calls] == [3, 5]
    assert not beam_of(outcome).proves(3)
    assert len(beam_of(outcome).rows) == 5


@pytest.mark.parametrize("max_beams", [0, 2, 3])
def test_a_budget_that_is_no_wider_than_the_first_beam_is_one_search(max_beams):
    engine = Tables(sharpness=0.2)
    [outcome] = search_proven(engine, [asked(20, 3, 3, max_beams)])
    assert [width for width, _ in engine.calls] == [3]
    assert not beam_of(outcome).proves(3)


def test_only_what_is_not_proven_is_searched_again():
    engine = Tables(sharpness=0.2)
    easy = asked(21, 1, 30, 1024)
    plain, hard = asked(22, 3, 3, 3), asked(20, 3, 3, 1024)
    outcomes = search_proven(engine, [plain, hard, easy])
    assert sorted(engine.calls[:2]) == [(3, [22, 20]), (30, [21])]
    assert {prompt for _, prompts in engine.calls[2:] for prompt in prompts} == {20}
    assert [beam_of(outcome).proves(3) for outcome in outcomes] == [False, True, True]
    for search, outcome in zip((plain, hard, easy), outcomes, strict=True):
        alone = beam_of(search_proven(engine, [search])[0])
        assert alone.rows.tolist() == beam_of(outcome).rows.tolist()
        assert alone.bound == beam_of(outcome).bound


def test_wider_searches_hold_no_more_beams_at_once_than_the_first_did():
    engine = Tables(sharpness=0.2)
    searches = [asked(30 + place, 3, 4, 1024) for place in range(9)]
    outcomes = search_proven(engine, searches)
    first, *wider = engine.calls
    assert first == (4, [30 + place for place in range(9)])
    assert wider
    assert all(width * len(prompts) <= 36 or len(prompts) == 1 for width, prompts in wider)
    assert any(len(prompts) > 1 for _, prompts in wider)
    assert all(beam_of(outcome).proves(3) for outcome in outcomes)


def test_a_query_that_breaks_keeps_its_error_and_is_not_asked_again():
    engine = Tables(sharpness=0.2)
    broken, fine = search_proven(engine, [asked(BREAKS, 3, 3, 1024), asked(20, 3, 3, 1024)])
    assert isinstance(broken, EngineError)
    assert beam_of(fine).proves(3)
    assert [prompts for _, prompts in engine.calls[1:]] == [[20]] * len(engine.calls[1:])


def test_nothing_asked_is_nothing_searched():
    engine = Tables()
    assert search_proven(engine, []) == []
    assert engine.calls == []


@pytest.mark.parametrize("engine_name", ["beam", "generate"])
def test_the_real_engines_prove_what_brute_force_finds(recommender: Recommender, engine_name: str) -> None:
    bundle = recommender.bundle
    engine = Recommender.of(bundle, engine=engine_name).engine
    histories = [[f"i{number}", f"i{number + 1}"] for number in range(0, 16, 2)]
    searches = [
        Search(
            Query(
                bundle.encoder.encode([row for item in history if (row := bundle.catalog.row(item)) is not None]),
                AllowedItems.all_but((), ItemMask.everything(len(bundle.catalog))),
            ),
            4,
            4,
            64,
        )
        for history in histories
    ]
    first = [beam_of(outcome) for outcome in engine.search([search.query for search in searches], 4)]
    assert not all(beam.proves(4) for beam in first), "else nothing is shown"
    for history, outcome in zip(histories, search_proven(engine, searches), strict=True):
        beam = beam_of(outcome)
        expected = oracle.best(oracle.score_all(bundle, history), 4, set())
        assert beam.proves(4)
        assert [bundle.catalog.item_id(int(row)) for row in beam.rows[:4]] == [item for item, _ in expected]
        assert beam.scores[:4] == pytest.approx([score for _, score in expected], abs=1e-4)
