"""What an explanation says is what brute force over all prefixes finds, and its beam is the search's own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding.beam import BeamEngine
from genrec.decoding.engine import Query
from genrec.decoding.explain import MAX_LISTED, Explanation, Prefix, explain
from genrec.decoding.generate import GenerateEngine
from genrec.decoding.scoring import path_distributions, path_log_probs
from genrec.decoding.steps import DecoderSteps, ModelSteps
from genrec.errors import InvalidOutput
from genrec.trie import ItemTrie
from tests.genrec.decoding.small_models import (
    assert_agree,
    beam_engine,
    everything,
    found,
    generate_engine,
    only,
    prefix_of,
    prompts,
    random_trie,
    small_model,
)
from tests.genrec.decoding.table import VOCABULARY as TABLE_WIDTH
from tests.genrec.decoding.table import random_paths, random_tables, table_engine


class Expected(NamedTuple):
    """One level, by brute force: prefixes with their sum, the best first, and where the probability went."""

    kept: list[tuple[tuple[int, ...], float]]
    pruned: list[tuple[tuple[int, ...], float]]
    closed: list[tuple[tuple[int, ...], float]]
    mass: tuple[float, float, float]


def by_brute_force(
    distribution: "dict[tuple[int, ...], np.ndarray]", paths: np.ndarray, alive: np.ndarray, width: int
) -> list[Expected]:
    """Beam search over tuples; `distribution` has log-probabilities over the whole vocabulary after every prefix."""
    exist = [tuple(path) for path in paths.tolist()]
    living = [path for path, lives in zip(exist, alive, strict=True) if lives]
    beams, levels = [((), np.float32(0))], []
    for level in range(paths.shape[1]):
        here = {path[: level + 1] for path in living}
        open_, shut, mass = [], [], np.zeros(3)
        weights = np.exp([float(total) for _, total in beams])
        for (prefix, total), weight in zip(beams, weights / weights.sum(), strict=True):
            log_probs = distribution[prefix]
            left = 1.0
            for child in sorted({path[: level + 1] for path in exist if path[:level] == prefix}):
                share = float(np.exp(np.float64(log_probs[child[-1]])))
                (open_ if child in here else shut).append((child, np.float32(total + log_probs[child[-1]])))
                mass[0 if child in here else 1] += weight * share
                left -= share
            mass[2] += weight * left
        for found_ in (open_, shut):
            found_.sort(key=lambda one: (-one[1], one[0]))
        beams = open_[:width]
        levels.append(Expected(beams, open_[width:], shut, tuple(mass)))
    return levels


def pairs(prefixes: Sequence[Prefix]) -> list[tuple[tuple[int, ...], float]]:
    return [(prefix.semantic_id, prefix.log_prob) for prefix in prefixes]


def assert_is(found_: Explanation, expected: Sequence[Expected], paths: np.ndarray, alive: np.ndarray, close: float):
    """Every number of an explanation. Items below are counted row by row."""
    assert [level.level for level in found_.levels] == list(range(paths.shape[1]))
    for level, want in zip(found_.levels, expected, strict=True):
        assert (level.pruned_total, level.closed_total) == (len(want.pruned), len(want.closed))
        for listed, all_ in (
            (level.kept, want.kept),
            (level.pruned, want.pruned[:MAX_LISTED]),
            (level.closed, want.closed[:MAX_LISTED]),
        ):
            assert [one for one, _ in pairs(listed)] == [one for one, _ in all_]
            assert [sum_ for _, sum_ in pairs(listed)] == pytest.approx([sum_ for _, sum_ in all_], abs=close)
            for prefix in listed:
                below = (paths[:, : level.level + 1] == prefix.semantic_id).all(axis=1)
                assert prefix.items == (below & alive).sum()
        mass = (level.mass.allowed, level.mass.closed_by_filter, level.mass.closed_by_trie)
        assert mass == pytest.approx(want.mass, abs=max(close, 1e-6))
        assert sum(mass) == pytest.approx(1.0, abs=1e-9)
        assert min(mass) >= 0.0


def of(engine: BeamEngine | GenerateEngine, trie: ItemTrie, query: Query, width: int) -> tuple:
    return explain(engine.steps(query, width), trie, trie.paths, query.allowed, width, engine.length_penalty)


@st.composite
def table_cases(draw: st.DrawFn) -> tuple:
    seed, levels = draw(st.integers(0, 10**6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(seed)
    num_items = draw(st.integers(1, min(TABLE_WIDTH**levels, 80)))
    paths = random_paths(rng, levels, num_items)
    tables = random_tables(rng, 1, levels, draw(st.sampled_from([0.0, 0.5, 3.0])))  # 0: everything ties
    mask = ItemMask(rng.random(num_items) < draw(st.sampled_from([0.3, 0.8, 1.1])))
    excluded = rng.choice(num_items, draw(st.integers(0, num_items - 1)), replace=False)
    allowed = AllowedItems.all_but(excluded, mask)
    if not len(allowed):
        allowed = AllowedItems.all_but((), ItemMask.everything(num_items))
    return paths, tables, allowed, draw(st.integers(1, 30)), draw(st.sampled_from([0.0, 1.0, 1.7]))


@given(table_cases())
@settings(max_examples=200, deadline=None)
def test_it_is_what_brute_force_finds_and_what_the_search_does(case):
    paths, tables, allowed, width, penalty = case
    trie = ItemTrie.from_sorted(paths)
    engine = table_engine(tables, trie, penalty)
    query = Query([0], allowed)
    beam, explanation = of(engine, trie, query, width)  # type: ignore[arg-type]
    distribution = {(): tables[0][0, 0]}
    for path in {tuple(whole[:level]) for whole in paths.tolist() for level in range(1, len(whole))}:
        number = int(sum(token * TABLE_WIDTH**place for place, token in enumerate(reversed(path))))
        distribution[path] = tables[len(path)][0, number]
    alive = np.isin(np.arange(len(paths)), allowed.select(np.arange(len(paths))))
    assert_is(explanation, by_brute_force(distribution, paths, alive, width), paths, alive, close=0.0)
    searched = found(engine.search([query], width)[0])
    assert beam.rows.tolist() == searched.rows.tolist()
    assert beam.scores.tolist() == searched.scores.tolist()
    assert beam.bound == searched.bound
    np.testing.assert_allclose(beam.log_probabilities, searched.log_probabilities, atol=1e-5)
    leaves = {prefix.semantic_id for prefix in explanation.levels[-1].kept}
    assert leaves == {tuple(paths[row].tolist()) for row in searched.rows}


def test_no_more_are_listed_than_20_of_each_and_all_are_counted():
    paths = random_paths(np.random.default_rng(0), 3, 200)
    trie = ItemTrie.from_sorted(paths)
    allowed = only(np.arange(200) % 2 == 0)
    tables = random_tables(np.random.default_rng(0), 1, 3, 0.1)
    _, explanation = of(table_engine(tables, trie), trie, Query([0], allowed), 12)
    last = explanation.levels[-1]
    assert (len(last.pruned), len(last.closed)) == (MAX_LISTED, MAX_LISTED)
    assert min(last.pruned_total, last.closed_total) > MAX_LISTED


def distributions(model, prompt: Sequence[int], paths: np.ndarray) -> "dict[tuple[int, ...], np.ndarray]":
    """What the model says after every prefix, each path fed whole."""
    read = path_distributions(model, [prompt] * len(paths), paths.tolist(), prefix_of(model)).numpy()
    return {
        tuple(path[:level]): read[row, level] for row, path in enumerate(paths.tolist()) for level in range(len(path))
    }


@pytest.mark.parametrize("name", ["t5", "t5-untied", "llama", "qwen3", "gpt2", "bloom"])
@pytest.mark.parametrize("make", [beam_engine, generate_engine])
def test_over_real_models_it_is_what_brute_force_finds(name, make):
    if make is beam_engine and name == "bloom":
        pytest.skip("only generate reads it")
    model, trie = small_model(name), random_trie(120, (8, 8, 8), seed=3)
    engine = make(model, trie)
    [prompt] = prompts([9])
    alive = np.random.default_rng(5).random(120) < 0.5
    excluded = np.flatnonzero(alive)[:9].tolist()
    query = Query(prompt, only(alive, excluded))
    alive = alive & ~np.isin(np.arange(120), excluded)
    for width in (1, 7, 200):
        beam, explanation = of(engine, trie, query, width)
        expected = by_brute_force(distributions(model, prompt, trie.paths), trie.paths, alive, width)
        assert_is(explanation, expected, trie.paths, alive, close=1e-4)
        assert_agree(beam, engine.search([query], width)[0], trie, query.allowed)


@pytest.mark.parametrize("name", ["t5", "llama", "gpt2"])
def test_our_engine_explains_its_own_numbers_to_the_last_bit(name):
    model, trie = small_model(name), random_trie(150, (8, 8, 8), seed=4)
    engine = beam_engine(model, trie)
    for seed, prompt in enumerate(prompts([5, 12, 20])):
        query = Query(prompt, everything(trie, excluded=range(seed, 30)))
        beam, _ = of(engine, trie, query, 10)
        searched = found(engine.search([query], 10)[0])
        assert beam.rows.tolist() == searched.rows.tolist()
        assert beam.scores.tolist() == searched.scores.tolist()
        assert beam.bound == searched.bound


def test_a_leaf_has_its_items_score():
    model, trie = small_model("t5"), random_trie(50, (6, 6, 6))
    engine = beam_engine(model, trie, penalty=2.0)
    [prompt] = prompts([6])
    beam, explanation = of(engine, trie, Query(prompt, everything(trie)), 5)
    leaves = explanation.levels[-1].kept
    assert [leaf.log_prob / 3**2.0 for leaf in leaves] == pytest.approx(beam.scores.tolist(), rel=1e-12)
    alone = path_log_probs(model, [prompt] * 5, [leaf.semantic_id for leaf in leaves], prefix_of(model)).sum(1)
    assert [leaf.log_prob for leaf in leaves] == pytest.approx(alone.tolist(), abs=1e-4)


@pytest.mark.parametrize("make", [beam_engine, generate_engine])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_that_breaks_is_an_error(make, value):
    model, trie = small_model("llama"), random_trie(20, (5, 5))
    with torch.no_grad():
        model.get_output_embeddings().weight[int(trie.token[1][3])] = value
    engine = make(model, trie)
    query = Query(prompts([4])[0], everything(trie))
    with pytest.raises(InvalidOutput, match="not finite"):
        of(engine, trie, query, 5)


def test_steps_say_the_same_by_decoder_and_by_whole_paths():
    model, trie = small_model("t5"), random_trie(200, (6, 6, 6))
    query = Query(prompts([8])[0], everything(trie))
    both = beam_engine(model, trie).steps(query, 40), generate_engine(model, trie).steps(query, 40)
    assert isinstance(both[0], DecoderSteps)
    assert isinstance(both[1], ModelSteps)
    going = [
        (np.arange(4, 10), np.zeros(6, np.int64)),
        (np.tile(np.arange(10, 16), 6), np.repeat(np.arange(6), 6)[::-1]),
    ]
    for level in range(3):  # 36 in the end, more than are read at once
        wanted = np.unique(trie.token[level])[::-1].copy()
        one, other = (steps.log_probs(wanted) for steps in both)
        assert one.shape == other.shape == ((1, 6, 36)[level], len(wanted))
        np.testing.assert_allclose(one, other, atol=1e-4)
        for steps in both if level < 2 else ():
            steps.step(*going[level])
