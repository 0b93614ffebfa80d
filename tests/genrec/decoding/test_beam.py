"""Our engine answers what `generate` answers, for any catalog, filter and batch; a query that breaks fails alone."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from genrec.allowed import AllowedItems, ItemMask
from genrec.decoding import beam as beam_module
from genrec.decoding.beam import BeamEngine
from genrec.decoding.engine import Beam, Query
from genrec.decoding.generate import GenerateEngine
from genrec.decoding.scoring import path_log_probs
from genrec.errors import EngineError
from genrec.trie import ItemTrie
from tests.genrec.decoding.small_models import (
    CLOSE,
    FIRST_ITEM_TOKEN,
    assert_agree,
    assert_engines_agree,
    beam_engine,
    everything,
    found,
    generate_engine,
    only,
    prompts,
    random_trie,
    small_model,
)
from tests.genrec.decoding.table import (
    all_sums,
    path_terms,
    random_paths,
    random_tables,
    table_engine,
)

RAGGED = (17, 1, 40, 6, 6)
BOTH = pytest.mark.parametrize("name", ["t5", "llama"])


@cache
def engines(
    name: str, num_items: int, sizes: tuple[int, ...], stride: int = 1, penalty: float = 1.0
) -> tuple[BeamEngine, GenerateEngine]:
    vocabulary = FIRST_ITEM_TOKEN + stride * sum(sizes)
    model, trie = small_model(name, vocabulary), random_trie(num_items, sizes, stride=stride)
    return beam_engine(model, trie, penalty), generate_engine(model, trie, penalty)


def unfiltered(trie: ItemTrie, lengths: Sequence[int] = RAGGED, vocabulary: int = 20) -> list[Query]:
    return [Query(prompt, everything(trie)) for prompt in prompts(lengths, vocabulary)]


# --- any catalog ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("num_beams", [1, 10, 50])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_small_catalog_is_searched_as_generate_does(name: str, num_beams: int, penalty: float) -> None:
    beam, generate = engines(name, 10, (3, 4, 5), penalty=penalty)
    assert_engines_agree(beam, generate, unfiltered(generate.trie, vocabulary=16), num_beams)


def trained(model: PreTrainedModel, trie: ItemTrie, steps: int = 150) -> PreTrainedModel:
    """The model after some steps on prompts whose next item is always among twenty."""
    paths = torch.from_numpy(trie.paths).long()
    prompt = torch.tensor(prompts([8] * 20))
    item = paths[torch.arange(20) * (len(paths) // 20)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        if model.config.is_encoder_decoder:
            loss = model(input_ids=prompt, labels=item).loss
        else:
            labels = torch.cat([torch.full_like(prompt, -100), item], dim=1)
            loss = model(input_ids=torch.cat([prompt, item], dim=1), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0
    return model.eval()


@pytest.mark.parametrize("name", ["t5", "llama", "qwen2", "qwen3"])
def test_models_that_have_learnt_are_searched_as_generate_does(name: str) -> None:
    # Scores lie further apart than at random, and probabilities are close to 0 and 1.
    trie = random_trie(300, (10, 12, 14))
    model = trained(small_model(name, std=0.1), trie)
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    for num_beams in (10, 50):
        assert_engines_agree(beam, generate, unfiltered(trie, (8, 8, 3, 17)), num_beams)


@BOTH
@pytest.mark.parametrize("num_beams", [1, 10, 50])
def test_a_thousand_items_are_searched_as_generate_does(name: str, num_beams: int) -> None:
    beam, generate = engines(name, 1000, (12, 12, 12, 12))
    assert_engines_agree(beam, generate, unfiltered(generate.trie), num_beams)


@BOTH
@pytest.mark.parametrize("num_beams", [10, 50])
def test_a_hundred_thousand_items_are_searched_as_generate_does(name: str, num_beams: int) -> None:
    beam, generate = engines(name, 100_000, (64, 64, 64))
    half = np.random.default_rng(0).random(100_000) < 0.5
    first, second = prompts((30, 11), 196)
    queries = [Query(first, everything(generate.trie)), Query(second, only(half, range(0, 100_000, 101)))]
    assert_engines_agree(beam, generate, queries, num_beams)


@BOTH
@pytest.mark.parametrize("sizes", [(50,), (7, 8), (4, 5, 6), (3, 3, 4, 3), (2, 3, 2, 3, 3)], ids=len)
def test_any_number_of_levels_is_searched(name: str, sizes: tuple[int, ...]) -> None:
    beam, generate = engines(name, 40, sizes)
    for num_beams in (1, 3, 12, 50):
        assert_engines_agree(beam, generate, unfiltered(generate.trie, vocabulary=13), num_beams)


@BOTH
@pytest.mark.parametrize("wide", [0, 2], ids=["wide first", "wide last"])
def test_a_trie_with_one_node_of_thousands_of_children_is_searched(name: str, wide: int) -> None:
    fan = 2000
    rng = np.random.default_rng(0)
    chains = np.stack([np.arange(4, 9), np.arange(10, 15), np.arange(20, 25)], axis=1)  # each node has one child
    star = np.tile([9, 15, 30], (fan, 1))
    star[:, wide] = np.arange(31, 31 + fan)
    paths = np.concatenate([chains, star]).astype(np.int32)
    trie = ItemTrie.from_sorted(paths[np.lexsort(paths.T[::-1])])
    model = small_model(name, 31 + fan)
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    queries = [
        *unfiltered(trie, (5, 9)),
        Query([7, 9], only(rng.random(trie.num_items) < 0.02)),
        Query([7, 30], everything(trie, [row for row in range(trie.num_items) if trie.paths[row, wide] > 33])),
    ]
    for num_beams in (1, 10, 50):
        assert_engines_agree(beam, generate, queries, num_beams)


@BOTH
def test_item_tokens_need_not_be_a_run_of_ids(name: str) -> None:
    beam, generate = engines(name, 200, (8, 8, 8), stride=3)
    assert_engines_agree(beam, generate, unfiltered(generate.trie), 10)


@pytest.mark.parametrize("prefix", [(0, 3), (3, 0, 5, 7), tuple([0, 3] * 20)], ids=len)
def test_a_decoder_may_start_with_several_tokens(prefix: tuple[int, ...]) -> None:
    model, trie = small_model("t5"), random_trie(60, (5, 6, 7))
    beam, generate = beam_engine(model, trie, prefix=prefix), generate_engine(model, trie, prefix=prefix)
    queries = unfiltered(trie)
    assert_engines_agree(beam, generate, queries, 10)
    plain = found(beam_engine(model, trie).search(queries, 10)[0])
    assert not np.allclose(plain.scores, found(beam.search(queries, 10)[0]).scores, atol=1e-3)


@BOTH
def test_one_item_is_a_catalog_too(name: str) -> None:
    beam, generate = engines(name, 1, (3, 3, 3))
    for num_beams in (1, 2, 50):
        assert_engines_agree(beam, generate, unfiltered(generate.trie, vocabulary=10), num_beams)
    only_one = found(beam.search(unfiltered(generate.trie, (3,), 10), 5)[0])
    assert only_one.log_probabilities.tolist() == [0.0]
    assert only_one.bound == -np.inf


# --- any filter -------------------------------------------------------------------------------------------------------


def filters(trie: ItemTrie) -> dict[str, AllowedItems]:
    """Every kind of limit, for a catalog of some hundreds."""
    rng, items = np.random.default_rng(5), trie.num_items
    half, twentieth, one = rng.random(items) < 0.5, rng.random(items) < 0.05, np.zeros(items, dtype=bool)
    one[items // 3] = True
    subtree = range(trie.first_leaf[1][2], trie.first_leaf[1][4])  # all below two nodes of the first level
    deep = range(trie.first_leaf[2][5], trie.first_leaf[2][9])
    return {
        "nothing": everything(trie),
        "exclude few": everything(trie, [0, 5, items - 1]),
        "exclude most": everything(trie, np.delete(np.arange(items), [3, 77, 78])),
        "exclude all but one": everything(trie, np.delete(np.arange(items), 100)),
        "exclude subtrees": everything(trie, [*subtree, *deep]),
        "mask 50 %": only(half),
        "mask 5 %": only(twentieth),
        "mask one item": only(one),
        "mask and exclude": only(half, rng.choice(items, 40, replace=False)),
        "mask and empty subtrees": only(half, [*subtree, *deep]),
        "mask and exclude all but one": only(twentieth, np.flatnonzero(twentieth)[1:]),
        "the rest of a mask": only(~half, np.flatnonzero(~half)[::2]),
    }


def test_the_filters_of_these_tests_are_what_they_are_called() -> None:
    trie = random_trie(300, (7, 8, 9))
    sizes = {kind: len(allowed) for kind, allowed in filters(trie).items()}
    assert sizes["nothing"] == 300
    assert sizes["exclude all but one"] == sizes["mask one item"] == sizes["mask and exclude all but one"] == 1
    assert sizes["mask and empty subtrees"] < sizes["mask 50 %"] < 200
    assert 5 < sizes["mask 5 %"] < 30


@BOTH
@pytest.mark.parametrize("num_beams", [1, 10, 50])
def test_every_kind_of_filter_is_exact_all_in_one_batch(name: str, num_beams: int) -> None:
    beam, generate = engines(name, 300, (7, 8, 9))
    limits = filters(generate.trie).values()
    queries = [
        Query(prompt, allowed) for prompt, allowed in zip(prompts(range(1, 1 + len(limits)), 28), limits, strict=True)
    ]
    assert_engines_agree(beam, generate, queries, num_beams)


@BOTH
@pytest.mark.parametrize("kind", ["exclude most", "exclude subtrees", "mask 5 %", "mask and empty subtrees"])
def test_a_filtered_search_is_a_search_of_a_smaller_catalog(name: str, kind: str) -> None:
    beam, generate = engines(name, 300, (7, 8, 9))
    allowed = filters(generate.trie)[kind]
    rows = allowed.select(np.arange(300))
    small = ItemTrie.from_sorted(generate.trie.paths[rows])
    model = generate.model
    for prompt in prompts((9, 2), 28):
        one = found(beam.search([Query(prompt, allowed)], 6)[0])
        other = found(beam_engine(model, small).search([Query(prompt, everything(small))], 6)[0])
        assert one.rows.tolist() == rows[other.rows].tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)
        assert one.bound == pytest.approx(other.bound, abs=1e-6)


def test_a_batch_may_have_more_masks_than_fit_in_the_tables() -> None:
    model, trie = small_model("llama"), random_trie(300, (7, 8, 9))
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    beam.tables.capacity = 3
    rng = np.random.default_rng(0)
    masks = [ItemMask(rng.random(300) < 0.3) for _ in range(7)] + [ItemMask.everything(300)]
    order = [*range(8), 3, 0, 7, 5, 5, 2]
    queries = [
        Query(prompt, AllowedItems.all_but([place], masks[mask]))
        for place, (mask, prompt) in enumerate(zip(order, prompts([4, 9] * 7), strict=True))
    ]
    for _ in range(2):  # the second time some tables are there already
        assert_engines_agree(beam, generate, queries, 7)


# --- any batch --------------------------------------------------------------------------------------------------------


@BOTH
def test_an_answer_does_not_depend_on_what_it_is_batched_with(name: str) -> None:
    beam, generate = engines(name, 300, (7, 8, 9))
    limits = [*filters(generate.trie).values()]
    queries = [Query(prompt, limit) for prompt, limit in zip(prompts([3, 40, 12] * 4, 28), limits, strict=True)]
    for num_beams in (1, 6, 50):
        together = beam.search(queries, num_beams)
        backwards = beam.search(queries[::-1], num_beams)[::-1]
        for query, one, other in zip(queries, together, backwards, strict=True):
            assert_agree(one, beam.search([query], num_beams)[0], generate.trie, query.allowed, close=1e-5)
            assert_agree(one, other, generate.trie, query.allowed, close=1e-5)


@pytest.mark.parametrize("most", [1, 40, 200])
def test_a_batch_with_too_many_children_is_taken_apart(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    beam, generate = engines("t5", 300, (7, 8, 9))
    queries = unfiltered(generate.trie, (9, 3, 17, 1, 3, 40, 12), 28)
    whole, sizes = beam.search(queries, 6), []
    plain = beam.decoder.prefill

    def watched(padded, num_slots):  # type: ignore[no-untyped-def]
        sizes.append(len(padded.ids))
        return plain(padded, num_slots)

    monkeypatch.setattr(beam.decoder, "prefill", watched)
    monkeypatch.setattr(beam_module, "_MAX_CHILDREN", most)
    for query, one, other in zip(queries, whole, beam.search(queries, 6), strict=True):
        assert_agree(one, other, generate.trie, query.allowed, close=1e-5)
    assert sum(sizes) == len(queries)
    assert max(sizes) == max(1, most // (6 * 9))


def test_no_query_is_no_answer() -> None:
    beam, _ = engines("llama", 10, (3, 4, 5))
    assert beam.search([], 5) == []


# --- ties -------------------------------------------------------------------------------------------------------------


def beam_by_hand(
    tables: Sequence[np.ndarray], model: int, paths: np.ndarray, rows: np.ndarray, num_beams: int, first: int = 1
) -> tuple[list[int], float]:
    """Beam search over prefixes of the allowed paths, and the best sum that was pruned.

    Equal sums come in the order of prefixes, or backwards with `first` -1.
    """
    terms, levels = path_terms(tables, model, paths), paths.shape[1]
    kept, bound = {(): np.float32(0)}, -np.inf
    for level in range(levels):
        children = {
            tuple(paths[row, : level + 1]): kept[prefix] + terms[row, level]
            for row in rows
            if (prefix := tuple(paths[row, :level])) in kept
        }
        order = sorted(children, key=lambda prefix: (-children[prefix], [first * token for token in prefix]))
        bound = max([bound, *(float(children[prefix]) for prefix in order[num_beams:])])
        kept = {prefix: children[prefix] for prefix in order[:num_beams]}
    row_of = {tuple(paths[row]): int(row) for row in rows}
    return [row_of[prefix] for prefix in kept], bound


def test_ties_are_broken_by_row_at_every_level_of_any_batch() -> None:
    rng, models, levels = np.random.default_rng(0), 30, 3
    tables = [np.round(table).clip(-3) for table in random_tables(rng, models, levels, 1.0)]  # few values
    paths = random_paths(rng, levels, 90)
    engine = table_engine(tables, ItemTrie.from_sorted(paths), 0.0)
    queries, rows = [], []
    for model in range(models):
        excluded = rng.choice(90, rng.integers(0, 80), replace=False)
        mask = ItemMask(rng.random(90) < 0.8) if model % 3 == 0 else ItemMask.everything(90)
        allowed = AllowedItems.all_but(excluded, mask)
        if not len(allowed):
            allowed = AllowedItems.all_but([], mask)
        rows.append(allowed.select(np.arange(90)))
        queries.append(Query([model] * (1 + model % 4), allowed))
    tied = 0
    for num_beams in (1, 2, 3, 7, 20):
        together = engine.search(queries, num_beams)
        again = engine.search(queries[::-1], num_beams)[::-1]
        for model, query in enumerate(queries):
            expected, bound = beam_by_hand(tables, model, paths, rows[model], num_beams)
            beam, other = found(together[model]), found(again[model])
            assert beam.rows.tolist() == expected
            assert beam.bound == bound
            assert beam.scores.tolist() == sorted(beam.scores.tolist(), reverse=True)
            for attribute in ("rows", "scores", "log_probabilities"):
                assert getattr(beam, attribute).tolist() == getattr(other, attribute).tolist()
            assert beam.rows.tolist() == found(engine.search([query], num_beams)[0]).rows.tolist()
            tied += beam_by_hand(tables, model, paths, rows[model], num_beams, first=-1)[0] != expected
    assert tied > 20, "no tie at a cut: the test shows nothing"


# --- a query that breaks ----------------------------------------------------------------------------------------------

POISON = FIRST_ITEM_TOKEN + 28
"""A token of no item: only a prompt can have it."""


def poisoned(name: str, token: int, value: float, num_items: int = 200) -> tuple[BeamEngine, ItemTrie]:
    """An engine whose model turns everything after one token into a value that is not finite."""
    model, trie = small_model(name), random_trie(num_items, (7, 8, 9))
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = value
        if model.config.is_encoder_decoder:  # tied in this model, and the head must stay sound
            model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.nan_to_num(0.0, 0.0, 0.0))
    return beam_engine(model, trie), trie


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("num_beams", [1, 6, 50])
def test_a_query_that_breaks_fails_alone_and_the_others_stay_bit_for_bit(
    name: str, value: float, num_beams: int
) -> None:
    engine, trie = poisoned(name, POISON, value)
    given = prompts((12, 12, 5, 9, 1), POISON - 1)
    allowed = [everything(trie), everything(trie, range(150)), everything(trie), everything(trie), everything(trie)]
    sound = engine.search([Query(*pair) for pair in zip(given, allowed, strict=True)], num_beams)
    given[3][4] = given[0][0] = POISON
    outcomes = engine.search([Query(*pair) for pair in zip(given, allowed, strict=True)], num_beams)
    for place in (0, 3):
        assert isinstance(outcomes[place], EngineError)
        assert "not finite" in str(outcomes[place])
    for place in (1, 2, 4):
        one, other = found(outcomes[place]), found(sound[place])
        assert one.rows.tolist() == other.rows.tolist()
        assert one.scores.tolist() == other.scores.tolist()
        assert one.log_probabilities.tolist() == other.log_probabilities.tolist()
        assert one.bound == other.bound
    assert isinstance(engine.search([Query(given[0], allowed[0])], num_beams)[0], EngineError)
    with pytest.raises(EngineError, match="not finite"):
        engine.score(Query(given[0], allowed[0]), np.arange(5))


@BOTH
def test_what_breaks_below_items_that_are_not_allowed_touches_nobody(name: str) -> None:
    trie = random_trie(200, (7, 8, 9))
    for node in (0, 3):
        engine, _ = poisoned(name, int(trie.token[0][node]), np.nan)
        below = range(trie.first_leaf[1][node], trie.first_leaf[1][node + 1])
        prompt = [int(trie.token[1][0])]
        narrow = Query(prompt, everything(trie, np.delete(np.arange(200), [150, 170])))
        wide = Query(prompt, everything(trie, below))
        hit = Query(prompt, everything(trie))
        # the narrow one has dead beams beside the wide one, and they may stand anywhere
        alone = found(engine.search([narrow], 20)[0])
        one, other, failed = engine.search([narrow, wide, hit], 20)
        assert found(one).rows.tolist() == alone.rows.tolist()
        assert found(one).scores.tolist() == pytest.approx(alone.scores.tolist(), abs=1e-6)
        assert len(found(other).rows) == 20
        assert isinstance(failed, EngineError)


@BOTH
def test_a_vocabulary_entry_of_no_item_that_is_not_a_number_fails_the_query(name: str) -> None:
    model, trie = small_model(name), random_trie(40, (4, 4, 4))
    with torch.no_grad():
        head = model.get_output_embeddings().weight.clone()
        head[1] = torch.nan
        model.get_output_embeddings().weight = torch.nn.Parameter(head)
    for engine in (beam_engine(model, trie), generate_engine(model, trie)):
        outcomes = engine.search(unfiltered(trie, (3, 7)), 5)
        assert all(isinstance(outcome, EngineError) for outcome in outcomes)
        with pytest.raises(EngineError, match="not finite"):
            engine.score(unfiltered(trie, (3,))[0], np.arange(3))


def test_an_allowed_item_without_any_probability_is_left_out_or_an_error() -> None:
    rng = np.random.default_rng(0)
    tables = random_tables(rng, 2, 2, 1.0)
    paths = random_paths(rng, 2, 20)
    impossible = int(paths[7, 0])
    tables[0][0, 0, impossible] = -np.inf
    possible = np.flatnonzero(paths[:, 0] != impossible)
    engine = table_engine(tables, ItemTrie.from_sorted(paths), 0.0)
    trie = ItemTrie.from_sorted(paths)
    broken, sound = Query([0], everything(trie)), Query([1], everything(trie))
    narrow, other = engine.search([broken, sound], 5)
    sums = all_sums(tables, 0, paths)
    assert set(found(narrow).rows.tolist()) <= set(possible.tolist())
    np.testing.assert_array_equal(found(narrow).scores, sums[found(narrow).rows])
    wide, whole = engine.search([broken, sound], 20)
    assert isinstance(wide, EngineError)
    assert len(found(whole).rows) == 20
    assert found(other).rows.tolist() == found(whole).rows[:5].tolist() or len(found(other).rows) == 5
    with pytest.raises(EngineError, match="not finite"):
        engine.score(broken, np.arange(20))


def test_an_item_that_breaks_breaks_the_scores_of_its_siblings() -> None:
    # the model's own softmax would spread it over all tokens; this one gives it to one alone
    tables = random_tables(np.random.default_rng(0), 1, 2, 1.0)
    paths = random_paths(np.random.default_rng(0), 2, 20)
    trie = ItemTrie.from_sorted(paths)
    tables[1][0, paths[3, 0], paths[3, 1]] = np.nan
    others = np.delete(np.arange(20), 3)
    engine = table_engine(tables, trie)
    assert isinstance(engine.search([Query([0], everything(trie))], 20)[0], EngineError)
    with pytest.raises(EngineError, match="not finite"):
        engine.score(Query([0], everything(trie)), others)
    allowed = everything(trie, [3])  # nobody asks for it
    assert len(found(engine.search([Query([0], allowed)], 20)[0]).rows) == 19
    assert np.exp(engine.score(Query([0], allowed), others).log_probabilities).sum() == pytest.approx(1.0, abs=1e-6)


# --- scores of given rows ---------------------------------------------------------------------------------------------


def by_brute_force(generate: GenerateEngine, query: Query) -> tuple[np.ndarray, np.ndarray]:
    """Score and log-probability of every row, each level renormalised over the tokens that lead to an allowed item."""
    trie, model = generate.trie, generate.model
    terms = (
        path_log_probs(model, [query.prompt] * trie.num_items, trie.paths.tolist(), generate.decoder_prefix_ids)
        .double()
        .numpy()
    )
    scores = terms.sum(axis=1) / trie.num_levels**generate.length_penalty
    legal = set(query.allowed.select(np.arange(trie.num_items)).tolist())
    log_probabilities = np.full(trie.num_items, -np.inf)
    for row in legal:
        total = 0.0
        for level in range(trie.num_levels):
            siblings = {
                trie.paths[other, level]: terms[other, level]
                for other in legal
                if (trie.paths[other, :level] == trie.paths[row, :level]).all()
            }
            total += terms[row, level] - np.logaddexp.reduce(list(siblings.values()))
        log_probabilities[row] = total
    return scores, log_probabilities


@BOTH
@pytest.mark.parametrize("kind", ["nothing", "exclude most", "exclude subtrees", "mask 5 %", "mask and empty subtrees"])
def test_given_rows_have_the_scores_of_brute_force(name: str, kind: str) -> None:
    beam, generate = engines(name, 150, (5, 6, 7), penalty=2.0)
    query = Query(prompts((11,), 22)[0], filters(generate.trie)[kind])
    scores, log_probabilities = by_brute_force(generate, query)
    rng = np.random.default_rng(0)
    for rows in (
        np.arange(150),
        rng.permutation(150),
        rng.integers(0, 150, 90),
        np.array([77]),
        np.array([9, 9, 2, 9]),
    ):
        for engine in (beam, generate):
            given = engine.score(query, rows)
            np.testing.assert_allclose(given.scores, scores[rows], atol=CLOSE, rtol=0)
            np.testing.assert_allclose(np.exp(given.log_probabilities), np.exp(log_probabilities[rows]), atol=1e-5)
            assert ((given.log_probabilities == -np.inf) == (log_probabilities[rows] == -np.inf)).all()


@BOTH
def test_a_search_scores_its_items_as_they_are_scored_when_named(name: str) -> None:
    beam, generate = engines(name, 300, (7, 8, 9))
    for allowed, prompt in zip(filters(generate.trie).values(), prompts(range(2, 14), 28), strict=True):
        query = Query(prompt, allowed)
        searched = found(beam.search([query], 10)[0])
        for engine in (beam, generate):
            scores = engine.score(query, searched.rows)
            np.testing.assert_allclose(scores.scores, searched.scores, atol=1e-5)
            np.testing.assert_allclose(scores.log_probabilities, searched.log_probabilities, atol=1e-4)


@BOTH
def test_thousands_of_rows_are_scored_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beam, generate = engines(name, 1000, (12, 12, 12, 12))
    query = Query(prompts((15,), 52)[0], everything(generate.trie, range(0, 1000, 7)))
    rows = np.random.default_rng(0).integers(0, 1000, 3000)
    whole = beam.score(query, rows)
    np.testing.assert_allclose(whole.scores[:200], generate.score(query, rows[:200]).scores, atol=CLOSE)
    monkeypatch.setattr(beam_module, "_SCORED_AT_ONCE", 37)
    parts = beam.score(query, rows)
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-5)
    np.testing.assert_allclose(parts.log_probabilities, whole.log_probabilities, atol=1e-4)
    assert ((parts.log_probabilities == -np.inf) == (rows % 7 == 0)).all()


@pytest.mark.parametrize("engine_of", [beam_engine, generate_engine])
def test_probabilities_of_all_rows_sum_to_one_over_what_is_allowed(
    engine_of: Callable[..., BeamEngine | GenerateEngine],
) -> None:
    model, trie = small_model("llama"), random_trie(150, (5, 6, 7))
    for allowed in filters(trie).values():
        given = engine_of(model, trie).score(Query([5, 6], allowed), np.arange(150))
        assert np.exp(given.log_probabilities).sum() == pytest.approx(1.0, abs=1e-5)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def assert_differ_only_among_near_ties(one: Beam, other: Beam, tolerance: float) -> int:
    """Ranks agree up to items whose scores lie within the tolerance; returns how many ranks differ."""
    np.testing.assert_allclose(one.scores, other.scores, atol=tolerance)  # rank by rank
    first, second = dict(zip(one.rows, one.scores, strict=True)), dict(zip(other.rows, other.scores, strict=True))
    for row in first.keys() & second.keys():
        assert abs(first[row] - second[row]) <= tolerance
    for mine, theirs in ((first, second), (second, first)):
        border = min(theirs.values())
        assert all(abs(mine[row] - border) <= tolerance for row in mine.keys() - theirs.keys())
    return int((one.rows != other.rows).sum())


def near_ties(name: str, num_queries: int = 40) -> Iterable[tuple[Beam, Beam]]:
    model, trie = small_model(name, dtype=torch.bfloat16, std=0.2), random_trie(300, (7, 8, 9))
    queries = [Query(prompt, everything(trie)) for prompt in prompts([3, 12, 30, 7] * (num_queries // 4), 28)]
    ours, theirs = beam_engine(model, trie).search(queries, 50), generate_engine(model, trie).search(queries, 50)
    return [(found(one), found(other)) for one, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("name", ["t5", "llama", "qwen3", "phi"])
def test_in_bfloat16_answers_differ_only_among_near_ties(name: str) -> None:
    # a logit of size 8 has steps of 1/32 in bfloat16; a score is the mean of three, each off by a few of them
    tolerance = 3 / 32
    differing = sum(assert_differ_only_among_near_ties(one, other, tolerance) for one, other in near_ties(name))
    assert differing, "no rank differs: the test shows nothing"
