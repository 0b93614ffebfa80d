"""An answer that is called proven is never wrong, and a search that goes on until it is proven finds the best there is.

Brute force over tables of random distributions, thousands of them, and over real models.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.beam import BeamEngine
from genrec.decoding.engine import Query
from genrec.decoding.prove import Search, search_proven
from genrec.decoding.scoring import path_log_probs
from genrec.trie import ItemTrie
from tests.genrec.decoding.small_models import (
    CLOSE,
    beam_engine,
    found,
    generate_engine,
    prefix_of,
    prompts,
    random_trie,
    small_model,
)
from tests.genrec.decoding.table import VOCABULARY, all_sums, random_paths, random_tables, table_engine

CASES_AT_ONCE = 100
NUM_TABLES = 100


class Cases(NamedTuple):
    """Queries of one engine, and the summed log-probability of every item for each of them, by brute force."""

    engine: BeamEngine
    queries: Sequence[Query]
    sums: Sequence[np.ndarray]


def random_cases(seed: int) -> Cases:
    rng = np.random.default_rng(seed)
    levels = int(rng.integers(1, 5))
    num_items = int(rng.integers(1, min(VOCABULARY**levels, 60) + 1))
    paths = random_paths(rng, levels, num_items)
    tables = random_tables(rng, CASES_AT_ONCE, levels, sharpness=float(rng.choice([0.3, 1.0, 3.0])))
    masks = [ItemMask.everything(num_items), *(ItemMask(rng.random(num_items) < share) for share in (0.8, 0.4))]
    queries = []
    for model in range(CASES_AT_ONCE):
        mask = masks[int(rng.integers(0, 3))]
        excluded = rng.choice(num_items, int(rng.integers(0, num_items)), replace=False) if rng.random() < 0.5 else ()
        allowed = AllowedItems.all_but(excluded, mask)
        queries.append(Query([model], allowed if len(allowed) else AllowedItems.all_but((), masks[0])))
    engine = table_engine(tables, ItemTrie.from_sorted(paths), length_penalty=0.0)
    return Cases(engine, queries, [all_sums(tables, model, paths) for model in range(CASES_AT_ONCE)])


def best(query: Query, sums: np.ndarray, k: int) -> list[int]:
    """The k best rows that are allowed; equal sums by row."""
    rows = query.allowed.select(np.arange(len(sums)))
    return rows[np.lexsort((rows, -sums[rows]))][:k].tolist()


def test_proven_is_never_wrong_in_ten_thousand_cases() -> None:
    proven_early = missed = cases = 0
    for seed in range(NUM_TABLES):
        engine, queries, sums = random_cases(seed)
        num_beams = 1 + seed % 8
        for query, total, outcome in zip(queries, sums, engine.search(queries, num_beams), strict=True):
            beam = found(outcome)
            cases += 1
            for k in range(1, num_beams + 1):
                right = beam.rows[:k].tolist() == best(query, total, k)
                assert right or not beam.proves(k), (seed, query.prompt, k)
                missed += not right
                proven_early += beam.proves(k) and beam.bound > -np.inf
            np.testing.assert_array_equal(beam.scores, total[beam.rows])
    assert cases == 10_000
    assert missed > 1000, "hardly a narrow search missed anything: the test shows nothing"
    assert proven_early > 1000, "hardly a narrow search was proven: the test shows nothing"


def test_a_search_that_is_widened_until_it_is_proven_is_brute_force_in_ten_thousand_cases() -> None:
    cases = 0
    for seed in range(NUM_TABLES):
        engine, queries, sums = random_cases(seed)
        k, width = 1 + seed % 5, 5 + seed % 3
        outcomes = search_proven(engine, [Search(query, k, width, 100) for query in queries])
        for query, total, outcome in zip(queries, sums, outcomes, strict=True):
            beam = found(outcome)
            assert beam.proves(k)
            assert beam.rows[:k].tolist() == best(query, total, k)
            cases += 1
    assert cases == 10_000


def test_a_beam_of_one_over_the_kth_probability_always_proves() -> None:
    for seed in range(20):
        engine, queries, sums = random_cases(seed)
        for query, total in list(zip(queries, sums, strict=True))[:25]:
            k = min(2, len(query.allowed))
            worst = float(total[best(query, total, k)[-1]])
            width = max(k, int(np.ceil(np.exp(-worst))))
            assert found(engine.search([query], width)[0]).proves(k)


@pytest.mark.parametrize("name", ["t5-untied", "llama"])
def test_proofs_hold_for_real_models(name: str) -> None:
    model, trie = small_model(name, std=0.4), random_trie(80, (4, 5, 6))
    rng = np.random.default_rng(0)
    given = prompts(rng.integers(1, 20, 150).tolist(), 19)
    masks = [ItemMask.everything(80), ItemMask(rng.random(80) < 0.5)]
    queries = [
        Query(prompt, AllowedItems.all_but(rng.choice(80, 10), masks[place % 2])) for place, prompt in enumerate(given)
    ]
    paths = trie.paths.tolist()
    engine, other = beam_engine(model, trie), generate_engine(model, trie)
    proven = missed = 0
    outcomes = [engine.search(queries, 6), search_proven(engine, [Search(query, 4, 6, 100) for query in queries])]
    few = [other.search(queries[:30], 6), search_proven(other, [Search(query, 4, 6, 100) for query in queries[:30]])]
    for place, query in enumerate(queries):
        totals = path_log_probs(model, [query.prompt] * 80, paths, prefix_of(model)).sum(1).numpy() / 3
        expected = best(query, totals, 4)
        for narrow, widened in [outcomes, few] if place < 30 else [outcomes]:
            beam, whole = found(narrow[place]), found(widened[place])
            right = beam.rows[:4].tolist() == expected
            assert right or not beam.proves(4)
            missed += not right
            proven += beam.proves(4)
            assert whole.proves(4)
            assert whole.rows[:4].tolist() == expected
            np.testing.assert_allclose(whole.scores[:4], totals[expected], atol=CLOSE)
    assert min(proven, missed) >= 3, (proven, missed)
