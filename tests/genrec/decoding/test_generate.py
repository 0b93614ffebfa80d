"""The search finds what brute force finds, and only what may be found."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from genrec.allowed import AllowedItems, ItemMask
from genrec.bundle import load_bundle
from genrec.decoding.engine import Beam, Query
from genrec.decoding.engines import ENGINES
from genrec.decoding.generate import GenerateEngine
from genrec.errors import EngineError
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.trie import ItemTrie
from tests import oracle
from tests.fakes import TinyShape, reseal, tiny_bundle

HISTORY = ["i3", "i1", "i4"]
NUM_ITEMS = 40
EVERYTHING = 50
"""More beams than items."""
CLOSE = 1e-4
"""How far a score may lie from another computation of it, as for golden answers."""

HF_ORACLE = Path(__file__).parents[4] / "shared" / "tools" / "hf_oracle.py"


def search(recommender: Recommender, history: list[str], num_beams: int, excluded: set[str] = frozenset()) -> Beam:  # type: ignore[assignment]
    return recommender.engine.search([query_of(recommender, history, excluded)], num_beams)[0]


def query_of(recommender: Recommender, history: list[str], excluded: set[str]) -> Query:
    catalog = recommender.bundle.catalog
    rows = [row for item_id in history if (row := catalog.row(item_id)) is not None]
    gone = [row for item_id in excluded if (row := catalog.row(item_id)) is not None]
    return Query(recommender.bundle.encoder.encode(rows), AllowedItems.all_but(gone, ItemMask.everything(len(catalog))))


def scores_of(recommender: Recommender, beam: Beam) -> dict[str, float]:
    return {
        recommender.bundle.catalog.item_id(int(row)): float(score)
        for row, score in zip(beam.rows, beam.scores, strict=True)
    }


def assert_same(one: Beam, other: Beam) -> None:
    assert one.rows.tolist() == other.rows.tolist()
    np.testing.assert_allclose(one.scores, other.scores, atol=CLOSE)
    np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=CLOSE)
    np.testing.assert_allclose(one.bound, other.bound, atol=CLOSE)


def tiny(tmp_path_factory: pytest.TempPathFactory, shape: TinyShape, engine: str = "generate") -> Recommender:
    return Recommender.load(tiny_bundle(tmp_path_factory.mktemp("tiny"), shape), device="cpu", engine=engine)


@pytest.fixture(scope="module")
def recommender(bundle_path: Path) -> Recommender:
    return Recommender.load(bundle_path, device="cpu", engine="generate")


@pytest.fixture(scope="module")
def causal(causal_bundle_path: Path) -> Recommender:
    return Recommender.load(causal_bundle_path, device="cpu", engine="generate")


@pytest.mark.parametrize("excluded", [set(), {"i3", "i1", "i4"}, {f"i{n}" for n in range(0, 40, 3)}])
def test_beams_as_many_as_items_give_the_brute_force_list(recommender: Recommender, excluded: set[str]) -> None:
    beam = search(recommender, HISTORY, EVERYTHING, excluded)
    expected = oracle.best(oracle.score_all(recommender.bundle, HISTORY), EVERYTHING, excluded)
    found = scores_of(recommender, beam)
    assert list(found) == [item_id for item_id, _ in expected]
    assert list(found.values()) == pytest.approx([score for _, score in expected], abs=CLOSE)
    assert beam.bound == -np.inf


@pytest.mark.parametrize("num_beams", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("excluded", [set(), {"i1", "i2", "i5", "i30"}])
def test_fewer_beams_give_what_a_beam_search_by_hand_gives(
    recommender: Recommender, num_beams: int, excluded: set[str]
) -> None:
    beam = search(recommender, HISTORY, num_beams, excluded)
    expected, bound = oracle.beam_search(recommender.bundle, HISTORY, num_beams, excluded)
    found = scores_of(recommender, beam)
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=CLOSE)
    assert beam.bound == pytest.approx(bound, abs=CLOSE)


@st.composite
def exclusions(draw: st.DrawFn) -> Callable[[Recommender], set[int]]:
    """Rows to exclude: any, all but one, all but a few, or everything below a node of the trie."""
    kind = draw(st.sampled_from(["any", "all but", "subtree"]))
    if kind == "subtree":
        level, share = draw(st.integers(1, 2)), draw(st.floats(0, 0.999))

        def below(recommender: Recommender) -> set[int]:
            first_leaf = recommender.bundle.trie.first_leaf[level]
            node = int(share * (len(first_leaf) - 1))
            return set(range(first_leaf[node], first_leaf[node + 1]))

        return below
    some = draw(st.sets(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=4 if kind == "all but" else NUM_ITEMS - 1))
    return lambda _: set(range(NUM_ITEMS)) - some if kind == "all but" else some


@settings(max_examples=30, deadline=None)
@given(exclusions(), st.integers(1, 8), st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=7))
def test_exactly_as_many_items_come_as_are_allowed_and_none_that_is_not(
    recommender: Recommender, rows_of: Callable[[Recommender], set[int]], k: int, history: list[int]
) -> None:
    excluded = rows_of(recommender)
    allowed = np.array(sorted(set(range(NUM_ITEMS)) - excluded))
    name = recommender.bundle.catalog.item_id
    request = Request(list(map(name, history)), k=k, exclude=list(map(name, excluded)), exclude_history=False)
    items = recommender.recommend([request])[0].items
    rows = [item.row for item in items]
    assert len(items) == min(k, len(allowed))
    assert not set(rows) & excluded
    assert len(set(rows)) == len(rows)
    assert rows == [row for _, row in sorted((-item.score, item.row) for item in items if item.score is not None)]
    # the same search where the other items never existed
    small = replace(recommender.engine, trie=ItemTrie.from_sorted(recommender.bundle.trie.paths[allowed]))
    prompt = recommender.bundle.encoder.encode(history)
    query = Query(prompt, AllowedItems.all_but([], ItemMask.everything(len(allowed))))
    beam = small.search([query], max(k, recommender.bundle.manifest.generation.num_beams))[0]
    assert allowed[beam.rows][:k].tolist() == rows
    assert beam.scores[:k].tolist() == pytest.approx([item.score for item in items], abs=CLOSE)
    assert np.exp(beam.log_probabilities)[:k].tolist() == pytest.approx([item.probability for item in items], abs=CLOSE)


def test_the_least_likely_item_is_found_when_it_is_the_only_one_allowed(recommender: Recommender) -> None:
    scores = oracle.score_all(recommender.bundle, HISTORY)
    worst = min(scores, key=scores.__getitem__)
    beam = search(recommender, HISTORY, 6, set(scores) - {worst})
    assert scores_of(recommender, beam) == pytest.approx({worst: scores[worst]}, abs=CLOSE)
    assert np.exp(beam.log_probabilities).tolist() == [1.0]


def test_one_beam_is_greedy_and_gives_one_item(recommender: Recommender) -> None:
    expected, bound = oracle.beam_search(recommender.bundle, HISTORY, 1, set())
    beam = search(recommender, HISTORY, 1)
    assert scores_of(recommender, beam) == pytest.approx(expected, abs=CLOSE)
    assert beam.bound == pytest.approx(bound, abs=CLOSE)
    answer = recommender.recommend([Request(HISTORY, k=1, num_beams=1, exclude_history=False)])[0]
    assert [item.item_id for item in answer.items] == list(expected)


def test_probabilities_are_those_of_the_model_held_to_the_allowed_items(recommender: Recommender) -> None:
    for excluded in (set(), {"i1", "i2", "i3", *(f"i{n}" for n in range(10, 30))}):
        beam = search(recommender, HISTORY, EVERYTHING, excluded)
        probabilities = np.exp(beam.log_probabilities)
        expected = oracle.constrained_probabilities(recommender.bundle, HISTORY, excluded)
        found = {
            recommender.bundle.catalog.item_id(int(row)): p for row, p in zip(beam.rows, probabilities, strict=True)
        }
        assert found == pytest.approx(expected, abs=1e-5)
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_probability_is_at_least_what_the_score_alone_says(recommender: Recommender) -> None:
    beam = search(recommender, HISTORY, 10, {"i1"})
    assert (beam.log_probabilities >= beam.scores * recommender.bundle.trie.num_levels - 1e-5).all()


def test_an_answer_is_called_exact_only_if_no_better_item_exists(recommender: Recommender) -> None:
    missed = proven = 0
    for number in range(12):
        history = [f"i{number}", f"i{(number * 7 + 3) % NUM_ITEMS}"]
        scores = oracle.score_all(recommender.bundle, history)
        for num_beams in (2, 3, 6, 30):
            beam = search(recommender, history, num_beams)
            found = scores_of(recommender, beam)
            for k in range(1, min(num_beams, 4) + 1):
                given = list(found)[:k]
                last = found[given[-1]]
                better = [item_id for item_id, score in scores.items() if score > last + CLOSE and item_id not in given]
                assert not (beam.proves(k) and better), (history, num_beams, k, better)
                missed += bool(better)
                proven += beam.proves(k) and beam.bound > -np.inf
    assert missed, "no narrow search missed anything: the test shows nothing"
    assert proven, "no narrow search was proven exact: the test shows nothing"


@pytest.mark.parametrize("penalty", [0.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("num_beams", [6, EVERYTHING])
def test_the_length_penalty_divides_scores_and_changes_nothing_else(
    recommender: Recommender, penalty: float, num_beams: int
) -> None:
    engine = recommender.engine
    assert isinstance(engine, GenerateEngine)
    query = query_of(recommender, HISTORY, {"i7"})
    plain = replace(engine, length_penalty=0.0).search([query], num_beams)[0]
    beam = replace(engine, length_penalty=penalty).search([query], num_beams)[0]
    assert beam.rows.tolist() == plain.rows.tolist()
    np.testing.assert_allclose(beam.scores, plain.scores / 3**penalty, rtol=1e-5)
    np.testing.assert_allclose(beam.bound, plain.bound / 3**penalty, rtol=1e-5)
    np.testing.assert_allclose(beam.log_probabilities, plain.log_probabilities, atol=1e-6)


def test_a_length_penalty_in_the_manifest_is_used(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    recommender = tiny(tmp_path_factory, TinyShape(architecture, length_penalty=2.0))
    found = scores_of(recommender, search(recommender, HISTORY, EVERYTHING))
    assert found == pytest.approx(oracle.score_all(recommender.bundle, HISTORY), abs=CLOSE)


@pytest.mark.parametrize("codebook_sizes", [(6, 5, 4), (1, 1), (3,)])
def test_a_catalog_of_one_item_answers_that_item(
    architecture: str, codebook_sizes: tuple[int, ...], causal: Recommender
) -> None:
    paths = np.array([[4 + level for level in range(len(codebook_sizes))]], dtype=np.int32)
    engine = GenerateEngine(causal.bundle.model, ItemTrie.from_sorted(paths), (), 1.0)
    for num_beams in (1, 2, 9):
        beam = engine.search([Query([3, 4], AllowedItems.all_but([], ItemMask.everything(1)))], num_beams)[0]
        assert beam.rows.tolist() == [0]
        assert beam.log_probabilities.tolist() == pytest.approx([0.0], abs=1e-6)
        assert beam.proves(5)


def test_a_catalog_of_one_level_is_searched(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    recommender = tiny(tmp_path_factory, TinyShape(architecture, codebook_sizes=(60,)))
    found = scores_of(recommender, search(recommender, HISTORY, EVERYTHING))
    assert found == pytest.approx(oracle.score_all(recommender.bundle, HISTORY), abs=CLOSE)
    narrow = search(recommender, HISTORY, 3)
    assert list(scores_of(recommender, narrow)) == list(found)[:3]
    assert narrow.proves(3)


def test_items_that_score_alike_come_in_the_order_of_their_rows(causal_bundle_path: Path) -> None:
    recommender = Recommender.of(load_bundle(causal_bundle_path), engine="generate")
    last_level = list(recommender.bundle.manifest.item_token_ids[2])
    with torch.no_grad():  # tokens of the last level that the model cannot tell apart
        head = recommender.bundle.model.get_output_embeddings().weight
        head[last_level] = head[last_level[0]].clone()
    beam = search(recommender, HISTORY, EVERYTHING)
    order = list(zip(-beam.scores, beam.rows, strict=True))
    assert len({score for score, _ in order}) < len(order)
    assert order == sorted(order)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [3, 6, EVERYTHING])
def test_early_stopping_changes_nothing_where_all_items_are_equally_long(
    recommender: Recommender, num_beams: int, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, used = GenerateEngine._generation_config, []
    engine = replace(recommender.engine, length_penalty=penalty)
    queries = [query_of(recommender, history, excluded) for history, excluded in BATCH]
    beams: list[list[Beam]] = []
    for value in (True, False, "never"):

        def config(self: GenerateEngine, num_beams: int, value: bool | str = value) -> GenerationConfig:
            changed = plain(self, num_beams)
            changed.early_stopping = value
            used.append(value)
            return changed

        monkeypatch.setattr(GenerateEngine, "_generation_config", config)
        beams.append(engine.search(queries, num_beams))
    assert used == [True, False, "never"]
    ours = Recommender.of(recommender.bundle, engine="beam").engine
    beams.append(replace(ours, length_penalty=penalty).search(queries, num_beams))
    for first, *others in zip(*beams, strict=True):
        for other in others:
            assert_same(first, other)


BATCH = [
    (["i1"], set()),
    (["i2", "i3", "i4", "i5", "i6"], {"i1"}),
    (["i7", "i8"], {f"i{n}" for n in range(39)}),
    (["i9", "i10", "i11"], {f"i{n}" for n in range(0, 40, 2)}),
    (["i12", "i13", "i14", "i15"], set()),
    (["i16"], {"i16"}),
    (["i17", "i18"], {f"i{n}" for n in range(3, 40)}),
    (["i0", "i0", "i0", "i0", "i0"], set()),
]


def test_an_answer_does_not_depend_on_what_it_is_batched_with(recommender: Recommender) -> None:
    queries = [query_of(recommender, history, excluded) for history, excluded in BATCH]
    together = recommender.engine.search(queries, 6)
    assert len({len(query.prompt) for query in queries}) > 3
    for query, beam in zip(queries, together, strict=True):
        assert_same(recommender.engine.search([query], 6)[0], beam)


@pytest.mark.parametrize(
    ("file", "poison"),
    [
        (
            "generation_config.json",
            {"repetition_penalty": 1.5, "do_sample": True, "top_k": 3, "num_beams": 2, "temperature": 0.3,
             "no_repeat_ngram_size": 1, "min_new_tokens": 9, "max_length": 4, "length_penalty": 3.0},
        ),
        ("generation_config.json", {"eos_token_id": [15, 16], "forced_eos_token_id": 15, "bad_words_ids": [[4]]}),
        ("generation_config.json", {"suppress_tokens": [4, 5, 6], "renormalize_logits": True, "guidance_scale": 2.0}),
        ("config.json", {"repetition_penalty": 1.5, "num_beams": 2, "do_sample": True, "no_repeat_ngram_size": 1}),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_of_generation_changes_nothing(
    bundle_path: Path, recommender: Recommender, tmp_path: Path, file: str, poison: dict[str, object]
) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "poisoned"))
    config = bundle / "model" / file
    config.write_text(json.dumps(json.loads(config.read_text()) | poison))
    poisoned = Recommender.of(load_bundle(reseal(bundle)), engine="generate")
    for num_beams in (1, 6, EVERYTHING):
        assert_same(search(recommender, HISTORY, num_beams), search(poisoned, HISTORY, num_beams))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("num_queries", [1, 3])
def test_weights_that_break_after_loading_are_an_error_not_an_answer(
    bundle_path: Path, value: float, whole: bool, num_queries: int
) -> None:
    recommender = Recommender.of(load_bundle(bundle_path), engine="generate")
    token = recommender.bundle.manifest.item_token_ids[0][1]
    with torch.no_grad():
        weight = recommender.bundle.model.get_input_embeddings().weight
        weight[slice(None) if whole else token] = value
    queries = [query_of(recommender, history, excluded) for history, excluded in BATCH[:num_queries]]
    outcomes = recommender.engine.search(queries, EVERYTHING)
    failed = [str(outcome) for outcome in outcomes if isinstance(outcome, EngineError)]
    assert isinstance(outcomes[0], EngineError)
    assert len(failed) == num_queries or not whole
    assert all("NaN log-probabilities" in sentence for sentence in failed)


def test_a_broken_request_leaves_a_sound_one_beside_it_untouched(causal_bundle_path: Path) -> None:
    recommender = Recommender.of(load_bundle(causal_bundle_path), engine="generate")
    trie = recommender.bundle.trie
    broken = int(trie.token[0][1])
    touched = set(range(trie.first_leaf[1][1], trie.first_leaf[1][2]))  # the items that start with the broken token
    with torch.no_grad():
        recommender.bundle.model.get_input_embeddings().weight[broken] = torch.nan
    encode = recommender.bundle.encoder.encode
    sound = Query(encode([0]), AllowedItems.all_but(touched, ItemMask.everything(NUM_ITEMS)))
    alone = recommender.engine.search([sound], EVERYTHING)[0]
    assert len(alone.rows) == NUM_ITEMS - len(touched)
    hopeless = Query(encode([min(touched)]), AllowedItems.all_but(range(1, NUM_ITEMS), ItemMask.everything(NUM_ITEMS)))
    found, failed = recommender.engine.search([sound, hopeless], EVERYTHING)
    assert isinstance(failed, EngineError)
    assert_same(found, alone)


def test_a_search_that_loses_an_allowed_item_is_an_error(causal: Recommender) -> None:
    # the head gives one allowed token no probability at all, so its items look like filler
    recommender = Recommender.of(load_bundle(causal.bundle.path), engine="generate")
    model, token = recommender.bundle.model, recommender.bundle.manifest.item_token_ids[0][0]
    plain = model.forward

    def without_token(*arguments: object, **named: object) -> object:
        out = plain(*arguments, **named)
        out.logits[..., token] = -torch.inf
        return out

    without_token.__signature__ = signature(plain)  # type: ignore[attr-defined]  # generate reads it
    model.forward = without_token
    outcome = search(recommender, HISTORY, EVERYTHING)
    assert isinstance(outcome, EngineError)
    assert "cannot be trusted" in str(outcome)


def test_a_path_that_is_not_in_the_trie_is_an_error(causal: Recommender) -> None:
    engine = causal.engine
    assert isinstance(engine, GenerateEngine)
    outcome = engine._collect(np.array([[4, 10, 99]]), np.array([-1.0]), np.array([-1.0]), -np.inf, 1)
    assert "left the trie" in str(outcome)


def test_a_decoder_may_start_with_several_tokens(seq2seq_bundle_path: Path) -> None:
    bundle = load_bundle(seq2seq_bundle_path)
    manifest = bundle.manifest.model_copy(update={"decoder_prefix_ids": (0, 3)})
    recommender = Recommender.of(replace(bundle, manifest=manifest), engine="generate")
    expected = oracle.score_all(recommender.bundle, HISTORY)
    assert expected != pytest.approx(oracle.score_all(bundle, HISTORY), abs=CLOSE)
    assert scores_of(recommender, search(recommender, HISTORY, EVERYTHING)) == pytest.approx(expected, abs=CLOSE)


@pytest.fixture(scope="module")
def hf_oracle() -> ModuleType:
    if not HF_ORACLE.is_file():
        pytest.skip("the independent oracle ../shared/tools/hf_oracle.py is not beside this checkout")
    spec = importlib.util.spec_from_file_location("hf_oracle", HF_ORACLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "shape",
    [
        TinyShape("seq2seq"),
        TinyShape("causal"),
        TinyShape("seq2seq", separator=True, suffix=True, seed=1),
        TinyShape("causal", separator=True, suffix=True, seed=1, length_penalty=0.5),
    ],
    ids=str,
)
@pytest.mark.parametrize("exclude_history", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_answers_as_plain_generate_does(
    hf_oracle: ModuleType,
    shape: TinyShape,
    engine: str,
    exclude_history: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recommender = tiny(tmp_path_factory, shape, engine)
    requests = [{"history": [*history, "unknown"], "exclude": sorted(excluded)} for history, excluded in BATCH]
    found = recommender.recommend(
        [Request(**request, k=4, num_beams=4, exclude_history=exclude_history) for request in requests]
    )
    expected = hf_oracle.Oracle(recommender.bundle.path, "cpu").answer(
        requests, k=4, num_beams=4, exclude_history=exclude_history
    )
    for answer, items in zip(found, expected, strict=True):
        assert [item.item_id for item in answer.items] == [item["item_id"] for item in items]
        assert [item.score for item in answer.items] == pytest.approx([item["score"] for item in items], abs=CLOSE)
