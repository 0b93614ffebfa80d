"""The recommender turns ids into rows, keeps its promises about them, and says what it did."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrec.allowed import AllowedItems, ItemMask
from genrec.answers import Answer
from genrec.bundle import load_bundle, load_draft
from genrec.decoding.engine import Beam, Query
from genrec.errors import BundleError, EngineError, InputError, RequestError
from genrec.recommender import Recommender
from genrec.requests import Request
from tests import oracle
from tests.fakes import TinyShape, reseal, seal_tiny, tiny_bundle, write_tiny_draft

ALL = [f"i{number}" for number in range(40)]


def ask(recommender: Recommender, history: list[str], **fields: Any) -> Answer:
    return recommender.recommend([Request(history, **fields)])[0]


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_an_answer_is_what_brute_force_gives(recommender: Recommender) -> None:
    answer = ask(recommender, ["i1", "i2"], k=40, num_beams=50)
    expected = oracle.best(oracle.score_all(recommender.bundle, ["i1", "i2"]), 40, {"i1", "i2"})
    assert ids(answer) == [item_id for item_id, _ in expected]
    assert [item.score for item in answer.items] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_an_item_is_named_in_every_way(recommender: Recommender) -> None:
    catalog = recommender.bundle.catalog
    answer = ask(recommender, ["i1"], k=3)
    for item in answer.items:
        assert (catalog.row(item.item_id), catalog.semantic_id(item.row)) == (item.row, item.semantic_id)
        assert item.source == "model"
        assert item.score is not None and item.score < 0
        assert item.probability is not None and 0 < item.probability < 1
    assert answer.scored_list == [(item.item_id, item.score) for item in answer.items]


def test_unknown_items_are_listed_in_order_and_dropped(recommender: Recommender) -> None:
    answer = ask(recommender, ["x", "i1", "", "i2", "x", "\ud800", "i1\0"], k=3)
    assert answer.unknown_items == ("x", "", "x", "\ud800", "i1\0")
    assert (answer.history_used, answer.truncated) == (2, False)
    assert answer.items == ask(recommender, ["i1", "i2"], k=3).items


def test_the_newest_known_items_are_used(recommender: Recommender) -> None:
    history = ["i1", "i2", "i3", "x", "i4", "i5", "i6"]
    answer = ask(recommender, history, k=4, exclude_history=False)
    assert (answer.history_used, answer.truncated) == (5, True)
    newest = ask(recommender, ["i2", "i3", "i4", "i5", "i6"], k=4, exclude_history=False)
    assert (newest.history_used, newest.truncated) == (5, False)
    assert answer.items == newest.items


def test_the_whole_history_as_sent_is_excluded_not_only_what_the_model_saw(recommender: Recommender) -> None:
    answer = ask(recommender, ALL[:33], k=10, exclude_history=True)
    assert sorted(ids(answer)) == sorted(ALL[33:])


@pytest.mark.parametrize("default", [True, False])
def test_whether_the_history_is_excluded_is_the_requests_word_then_the_bundles(
    tmp_path: Path, causal_bundle_path: Path, default: bool
) -> None:
    bundle = Path(shutil.copytree(causal_bundle_path, tmp_path / "tiny"))
    generation = json.loads((bundle / "manifest.json").read_text())["generation"]
    reseal(bundle, generation=generation | {"exclude_history": default})
    recommender = Recommender.of(load_bundle(bundle))
    history = ids(ask(recommender, ["i0"], k=5, exclude_history=False))[:3]
    for asked, excluded in ((None, default), (True, True), (False, False)):
        answer = ask(recommender, history, k=40, num_beams=50, exclude_history=asked)
        assert sorted(ids(answer)) == sorted(set(ALL) - set(history) if excluded else ALL)


def test_excluded_items_do_not_come_and_unknown_ones_do_not_matter(recommender: Recommender) -> None:
    plain = ids(ask(recommender, ["i1"], k=6))
    answer = ask(recommender, ["i1"], k=6, exclude=[plain[0], plain[3], "x", plain[0]])
    assert not set(ids(answer)) & {plain[0], plain[3]}
    assert len(answer.items) == 6


def test_when_fewer_items_are_allowed_than_asked_for_all_of_them_come(recommender: Recommender) -> None:
    answer = ask(recommender, ["i1"], k=30, exclude=ALL[:35])
    assert sorted(ids(answer)) == sorted(ALL[35:])
    assert answer.exact is True
    assert sum(item.probability or 0 for item in answer.items) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("num_beams", "proven"), [(2, {False}), (30, {True, False}), (50, {True})])
def test_whether_an_answer_is_exact_is_what_the_search_proved(
    recommender: Recommender, num_beams: int, proven: set[bool]
) -> None:
    catalog, encoder = recommender.bundle.catalog, recommender.bundle.encoder
    found = set()
    for row in range(8):
        answer = ask(recommender, [catalog.item_id(row)], k=2, num_beams=num_beams, exclude_history=False)
        query = Query(encoder.encode([row]), AllowedItems.all_but([], ItemMask.everything(len(catalog))))
        assert answer.exact == recommender.engine.search([query], num_beams)[0].proves(2)
        found.add(answer.exact)
    assert found <= proven


def test_when_no_item_is_allowed_none_comes(recommender: Recommender) -> None:
    answer = ask(recommender, ["i1"], exclude=ALL)
    assert (answer.items, answer.exact, answer.history_used) == ((), None, 1)


@pytest.mark.parametrize("history", [[], ["x"], ["x", "y"]])
def test_a_history_without_a_known_item_is_answered_with_popular_items(
    recommender: Recommender, history: list[str]
) -> None:
    catalog = recommender.bundle.catalog
    popularity = {catalog.item_id(row): int(catalog.popularity[row]) for row in range(40)}
    first = max(popularity, key=popularity.__getitem__)
    answer = ask(recommender, history, k=4, exclude=[first])
    del popularity[first]
    assert [popularity[item_id] for item_id in ids(answer)] == sorted(popularity.values(), reverse=True)[:4]
    assert {(item.score, item.probability, item.source) for item in answer.items} == {(None, None, "popular")}
    assert (answer.exact, answer.history_used, answer.unknown_items) == (None, 0, tuple(history))
    assert answer.scored_list == []


def test_or_with_nothing_if_the_caller_wants_no_fallback(recommender: Recommender) -> None:
    answer = ask(recommender, ["x"], fallback="none")
    assert (answer.items, answer.exact) == ((), None)


@pytest.mark.parametrize(
    ("fields", "pointer", "sentence"),
    [
        ({"k": 0}, "/k", "k must be from 1 to 50"),
        ({"k": -1}, "/k", "k must be from 1 to 50"),
        ({"k": 51}, "/k", "k must be from 1 to 50"),
        ({"k": 10**18}, "/k", "k must be from 1 to 50"),
        ({"k": 5, "num_beams": 4}, "/num_beams", "num_beams must be at least k"),
        ({"k": 1, "num_beams": 0}, "/num_beams", "num_beams must be at least k"),
        ({"k": 5, "num_beams": 51}, "/num_beams", "num_beams may be at most 50"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_the_field(
    recommender: Recommender, fields: dict[str, Any], pointer: str, sentence: str
) -> None:
    request = Request(["i1"], **fields)
    for refuse in (recommender.validate, lambda request: recommender.recommend([Request(["i2"]), request])):
        with pytest.raises(RequestError, match=sentence) as refused:
            refuse(request)
        assert refused.value.pointer == pointer


@pytest.mark.parametrize("fields", [{"k": 1}, {"k": 50}, {"k": 6, "num_beams": 6}, {"k": 1, "num_beams": 50}])
def test_the_limits_themselves_are_allowed(recommender: Recommender, fields: dict[str, Any]) -> None:
    recommender.validate(Request(["i1"], **fields))
    assert len(ask(recommender, ["i1"], **fields).items) == min(fields["k"], 39)


def test_the_beam_may_always_be_as_wide_as_the_bundles_default(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, TinyShape(num_beams=60))
    recommender = Recommender.load(bundle)
    assert recommender.max_num_beams == 60
    recommender.validate(Request(["i1"], num_beams=60))
    with pytest.raises(RequestError, match="at most 60"):
        recommender.validate(Request(["i1"], num_beams=61))


class Watched:
    """An engine that notes what it is asked."""

    name = "watched"

    def __init__(self, recommender: Recommender) -> None:
        self.engine, self.calls = recommender.engine, []

    def search(self, queries: list[Query], num_beams: int) -> list[Beam]:
        self.calls.append((num_beams, len(queries)))
        return self.engine.search(queries, num_beams)


def test_one_batch_searches_once_for_each_width_and_answers_in_order(recommender: Recommender) -> None:
    watched = Watched(recommender)
    requests = [
        Request(["i1"], k=3),
        Request(["x"], k=2),
        Request(["i2"], k=9),
        Request(["i3", "i4"], k=3),
        Request(["i5"], k=2, num_beams=9),
        Request(["i6"], exclude=ALL),
        Request(["i7"], k=2, num_beams=2),
    ]
    answers = replace(recommender, engine=watched).recommend(requests)
    assert sorted(watched.calls) == [(2, 1), (6, 2), (9, 2)]
    assert [len(answer.items) for answer in answers] == [3, 2, 9, 3, 2, 0, 2]
    for request, answer in zip(requests, answers, strict=True):
        alone = recommender.recommend([request])[0]
        assert ids(alone) == ids(answer)
        assert (alone.unknown_items, alone.history_used, alone.exact) == (
            answer.unknown_items,
            answer.history_used,
            answer.exact,
        )


def test_no_requests_have_no_answers(recommender: Recommender) -> None:
    assert recommender.recommend([]) == []


def test_the_time_is_told(recommender: Recommender) -> None:
    timing = ask(recommender, ["i1"]).timing
    assert timing.encode_ms >= 0
    assert timing.decode_ms > 0


def test_the_same_request_has_the_same_answer_every_time(recommender: Recommender, bundle_path: Path) -> None:
    again = Recommender.load(bundle_path, device="cpu")
    for history in (["i1"], ["i5", "i2", "i8"]):
        assert {ask(one, history, k=8).items for one in (recommender, again, recommender)} == {
            ask(recommender, history, k=8).items
        }


def test_an_engine_that_fails_is_an_engine_error(recommender: Recommender) -> None:
    class Failing(Watched):
        def search(self, queries: list[Query], num_beams: int) -> list[Beam]:
            raise EngineError("the model gave NaN")

    with pytest.raises(EngineError):
        ask(replace(recommender, engine=Failing(recommender)), ["i1"])


def test_what_is_served_can_be_seen(causal: Recommender) -> None:
    assert (causal.device, causal.dtype, causal.engine_name) == ("cpu", "float32", "beam")


@pytest.mark.parametrize(("engine", "chosen"), [("auto", "beam"), ("beam", "beam"), ("generate", "generate")])
def test_an_engine_is_chosen_by_name(causal_bundle_path: Path, engine: str, chosen: str) -> None:
    assert Recommender.load(causal_bundle_path, engine=engine).engine_name == chosen


def test_an_engine_that_is_not_there_is_the_callers_mistake(causal_bundle_path: Path) -> None:
    with pytest.raises(InputError, match="engine 'greedy' is unknown; use auto, beam or generate"):
        Recommender.load(causal_bundle_path, engine="greedy")


def test_golden_answers_are_replayed_at_load_unless_a_tool_looks_at_what_fails(bundle_copy: Path) -> None:
    text = (bundle_copy / "golden.jsonl").read_text()
    (bundle_copy / "golden.jsonl").write_text(text.replace('"score": -', '"score": -1'))
    reseal(bundle_copy)
    with pytest.raises(BundleError, match="golden answer 1"):
        Recommender.load(bundle_copy)
    recommender = Recommender.load(bundle_copy, golden=False)
    assert len(ask(recommender, ["i1"]).items) == 10


@pytest.fixture(scope="module")
def wide(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed bundle whose golden answers allow bfloat16 what a random model needs."""
    root = tmp_path_factory.mktemp("wide")
    return seal_tiny(write_tiny_draft(root, TinyShape(architecture)), root / "tiny")


def golden_facts(bundle: Path, **changes: float) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text())["golden"] | changes


def test_in_bfloat16_a_bundle_is_held_to_the_tolerance_it_was_sealed_with(wide: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(wide, tmp_path / "tiny"))
    reseal(bundle, golden=golden_facts(bundle, reduced_tolerance=0.5, reduced_overlap=0.5))
    recommender = Recommender.load(bundle, dtype="bfloat16")
    assert recommender.dtype == "bfloat16"
    assert len(ask(recommender, ["i1"], k=5).items) == 5
    reseal(bundle, golden=golden_facts(bundle, reduced_tolerance=1e-6))
    with pytest.raises(BundleError, match=r"golden answers in bfloat16: scores stray by 0\.\d+ .*serve in float32"):
        Recommender.load(bundle, dtype="bfloat16")
    Recommender.load(bundle, dtype="float32")


def test_a_draft_can_be_tried_before_it_is_sealed(tmp_path: Path) -> None:
    recommender = Recommender.of(load_draft(write_tiny_draft(tmp_path, TinyShape())))
    assert len(ask(recommender, ["i1"], k=5).items) == 5


def test_a_request_may_have_its_answer_proven_and_the_others_of_the_batch_stay_as_they_are(
    recommender: Recommender,
) -> None:
    catalog = recommender.bundle.catalog
    histories = [[catalog.item_id(row)] for row in range(10)]
    plain = recommender.recommend([Request(history, k=3, num_beams=3) for history in histories])
    assert any(answer.exact is False for answer in plain), "else nothing is shown"
    mixed = recommender.recommend(
        [Request(history, k=3, num_beams=3, prove_exact=place % 2 == 0) for place, history in enumerate(histories)]
    )
    for place, history in enumerate(histories):
        if place % 2:
            assert (mixed[place].items, mixed[place].exact) == (plain[place].items, plain[place].exact)
            continue
        expected = oracle.best(oracle.score_all(recommender.bundle, history), 3, set(history))
        assert mixed[place].exact is True
        assert ids(mixed[place]) == [item_id for item_id, _ in expected]
        assert len(mixed[place].items) == 3


def test_a_proof_ends_with_its_budget(recommender: Recommender) -> None:
    watched = Watched(recommender)
    bounded = replace(recommender, engine=watched, max_proof_beams=5)
    requests = [Request([f"i{number}"], k=4, num_beams=4, prove_exact=True) for number in range(8)]
    answers = bounded.recommend(requests)
    assert {width for width, _ in watched.calls} == {4, 5}
    assert False in {answer.exact for answer in answers}
    assert [len(answer.items) for answer in answers] == [4] * 8


def test_a_budget_narrower_than_the_beam_searches_once(recommender: Recommender) -> None:
    watched = Watched(recommender)
    ask(replace(recommender, engine=watched, max_proof_beams=1), ["i1"], k=2, num_beams=2, prove_exact=True)
    assert [width for width, _ in watched.calls] == [2]


def test_a_budget_of_nothing_refuses_proofs_and_nothing_else(recommender: Recommender) -> None:
    without = replace(recommender, max_proof_beams=0)
    with pytest.raises(RequestError, match="max_proof_beams is 0") as refused:
        without.validate(Request(["i1"], prove_exact=True))
    assert refused.value.pointer == "/prove_exact"
    without.validate(Request(["i1"]))


def test_the_budget_for_proofs_is_given_at_load(causal_bundle_path: Path) -> None:
    assert Recommender.load(causal_bundle_path, golden=False).max_proof_beams == 1024
    assert Recommender.load(causal_bundle_path, golden=False, max_proof_beams=7).max_proof_beams == 7


def test_a_history_without_a_known_item_has_nothing_to_prove(recommender: Recommender) -> None:
    answer = ask(recommender, ["x"], prove_exact=True)
    assert (answer.exact, {item.source for item in answer.items}) == (None, {"popular"})
