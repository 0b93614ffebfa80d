"""Golden answers prove a bundle: equal up to near-ties in float32, near in a shorter dtype."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genrec.bundle import Bundle, layout
from genrec.bundle.manifest import Golden
from genrec.errors import BundleError
from genrec.golden import GoldenAnswer, Reduced, ScoredList, check_golden, measure_reduced, read_golden
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import reseal

EXPECTED = [("a", -1.0), ("b", -2.0), ("c", -2.00005), ("d", -3.0)]


def check(recommender: Recommender, found: ScoredList) -> None:
    check_golden(recommender.bundle, [GoldenAnswer({"history": ["i1"]}, EXPECTED)], [found])


@pytest.mark.parametrize(
    "found",
    [
        EXPECTED,
        [("a", -1.00009), ("b", -1.99995), ("c", -2.0), ("d", -3.00005)],
        [("a", -1.0), ("c", -2.0), ("b", -2.00005), ("d", -3.0)],  # a near-tie in another order
        [("a", -1.0), ("b", -2.0), ("c", -2.00005), ("e", -2.99995)],  # a near-tie at the end of the list
    ],
)
def test_lists_that_differ_by_less_than_the_tolerance_are_equal(causal: Recommender, found: ScoredList) -> None:
    check(causal, found)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (EXPECTED[:3], "golden answer 1: 3 items came back instead of 4"),
        ([*EXPECTED, ("e", -4.0)], "5 items came back instead of 4"),
        ([("a", -1.0002), *EXPECTED[1:]], "the score at rank 1 is -1.000200 instead of -1.000000"),
        ([*EXPECTED[:3], ("d", -2.9998)], "the score at rank 4 is"),
        ([("b", -1.0), ("a", -2.0), *EXPECTED[2:]], "item 'a' at rank 1 came back as 'b'"),
        ([("x", -1.0), *EXPECTED[1:]], "item 'a' at rank 1 came back as 'x'"),
    ],
)
def test_lists_that_differ_by_more_are_refused_with_the_rank(
    causal: Recommender, found: ScoredList, sentence: str
) -> None:
    with pytest.raises(BundleError, match=sentence):
        check(causal, found)


def test_the_second_answer_is_checked_as_the_first(causal: Recommender) -> None:
    golden = [GoldenAnswer({"history": ["i1"]}, EXPECTED)] * 2
    with pytest.raises(BundleError, match="golden answer 2"):
        check_golden(causal.bundle, golden, [EXPECTED, EXPECTED[:1]])


def test_the_tolerance_is_the_manifests(causal: Recommender) -> None:
    manifest = causal.bundle.manifest.model_copy(update={"golden": Golden(score_tolerance=0.5)})
    check_golden(
        replace(causal.bundle, manifest=manifest),
        [GoldenAnswer({"history": ["i1"]}, EXPECTED)],
        [[(item_id, score + 0.4) for item_id, score in EXPECTED]],
    )


def test_an_answer_is_one_line_of_json_and_back() -> None:
    answer = GoldenAnswer({"history": ["é\n"], "k": 3}, (("a", -1.25), ("b", -2.5)))
    assert "\n" not in answer.to_json()
    assert json.loads(answer.to_json())["items"] == [{"item_id": "a", "score": -1.25}, {"item_id": "b", "score": -2.5}]
    assert GoldenAnswer.from_json(answer.to_json()) == answer


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_no_golden_answer(score: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        GoldenAnswer.from_json(GoldenAnswer({"history": []}, [("a", score)]).to_json())


def test_golden_answers_are_read_from_the_bundle(recommender: Recommender) -> None:
    golden = read_golden(recommender.bundle)
    assert [answer.request["history"] for answer in golden[:2]] == [["i1", "i2", "i3"], ["i4"]]
    assert [len(answer.items) for answer in golden] == [5, 5, 5]


def in_bfloat16(bundle: Bundle) -> Bundle:
    return replace(bundle, dtype="bfloat16")


def answers(recommender: Recommender, golden: list[GoldenAnswer]) -> list[ScoredList]:
    return [answer.scored_list for answer in recommender.recommend([Request.from_json(one.request) for one in golden])]


def test_how_far_a_dtype_strays_is_measured_by_rescoring_the_golden_items(recommender: Recommender) -> None:
    golden = read_golden(recommender.bundle)
    found = answers(recommender, golden)
    same = measure_reduced(recommender.bundle, golden, found)
    assert same.strayed < 1e-5
    assert same.overlap == 1.0
    shifted = [replace(one, items=[(item_id, score + 0.25) for item_id, score in one.items]) for one in golden]
    assert measure_reduced(recommender.bundle, shifted, found).strayed == pytest.approx(0.25, abs=1e-5)
    # one answer of three shares three items of five
    other = [*found[:2], [*found[2][:3], ("x", -9.0), ("y", -9.5)]]
    assert measure_reduced(recommender.bundle, golden, other).overlap == pytest.approx((1 + 1 + 0.6) / 3)


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (Golden(reduced_tolerance=0.2, reduced_overlap=0.8), False),
        (Golden(reduced_tolerance=0.05, reduced_overlap=0.8), True),
        (Golden(reduced_tolerance=0.2, reduced_overlap=0.9), True),
    ],
)
def test_a_shorter_dtype_must_keep_both_scores_and_lists(
    recommender: Recommender, allowed: Golden, refused: bool
) -> None:
    golden = read_golden(recommender.bundle)
    found = answers(recommender, golden)
    found[2] = [*found[2][:3], ("x", -9.0), ("y", -9.5)]
    moved = [replace(one, items=[(item_id, score + 0.1) for item_id, score in one.items]) for one in golden]
    manifest = recommender.bundle.manifest.model_copy(update={"golden": allowed})
    bundle = in_bfloat16(replace(recommender.bundle, manifest=manifest))
    if not refused:
        check_golden(bundle, moved, found)
        return
    with pytest.raises(BundleError, match=r"in bfloat16: scores stray by 0\.1 .* overlap by 0\.87 .*serve in float32"):
        check_golden(bundle, moved, found)


def test_answers_without_items_neither_stray_nor_overlap(recommender: Recommender) -> None:
    golden = [GoldenAnswer({"history": []}, [])]
    assert measure_reduced(recommender.bundle, golden, [[]]) == Reduced(0.0, 1.0)


def test_what_is_allowed_from_now_on_leaves_a_margin_over_what_was_measured() -> None:
    assert Reduced(0.1, 0.75).allowance == Golden(reduced_tolerance=0.2, reduced_overlap=0.55)
    assert Reduced(0.001, 0.1).allowance == Golden(reduced_tolerance=0.05, reduced_overlap=0.0)


@pytest.mark.parametrize("engine", ["beam", "generate"])
def test_a_golden_request_may_have_a_filter(bundle_copy: Path, engine: str) -> None:
    """As JSON gives it: an object within the request."""
    fields = {
        "history": ["i1", "i2"],
        "k": 4,
        "filter": {"where": {"year": {"gte": 1910}}, "include_ids": ["i3", "i8", "i9"]},
    }
    (answer,) = Recommender.load(bundle_copy).recommend([Request.from_json(fields)])
    assert 0 < len(answer.items) <= 3
    with (bundle_copy / layout.GOLDEN).open("a") as file:
        file.write("\n" + GoldenAnswer(fields, answer.scored_list).to_json())
    reseal(bundle_copy)
    assert read_golden(Recommender.load(bundle_copy, engine=engine).bundle)[-1].request == fields
    Recommender.load(bundle_copy, dtype="bfloat16", engine=engine)
