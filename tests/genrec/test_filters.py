"""A filter lets through what it says and nothing else, and one that comes again is not worked out again."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genrec.allowed import ItemMask
from genrec.answers import Answer
from genrec.availability import Availability
from genrec.decoding.engine import Beam, Query
from genrec.errors import EngineError, RequestError
from genrec.filters import Filter, FilterMasks
from genrec.predicates import OneOf
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.semantic_id import Catalog
from tests import oracle

ALL = [f"i{number}" for number in range(40)]
SINCE_1930 = Filter(where={"year": {"gte": 1930}})


def catalog_of(metadata: pa.Table) -> Catalog:
    codes = np.arange(4, dtype=np.int32)[:, None]
    return Catalog(pa.array(["a", "b", "c", "d"]), codes, np.arange(4), metadata)


CATALOG = catalog_of(pa.table({"n": [1, 2, None, 4]}))
AVAILABLE = ItemMask(np.array([True, True, True, False]))


def rows(asked: Filter | None, catalog: Catalog = CATALOG, available: ItemMask = AVAILABLE) -> list[int]:
    return np.flatnonzero(FilterMasks(catalog, available).mask(asked).allowed).tolist()


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (None, [0, 1, 2]),
        (Filter(), [0, 1, 2]),
        (Filter(where={}), [0, 1, 2]),
        (Filter(["b", "d", "nowhere", "b", "\ud800"]), [1]),
        (Filter([]), []),
        (Filter(where={"n": {"gte": 2}}), [1]),
        (Filter(where={"not": {"n": {"gte": 2}}}), [0]),
        (Filter(["a", "c"], {"n": {"lte": 2}}), [0]),
        (Filter(["c"], {}), [2]),
        (Filter(where={"not": {}}), []),
    ],
)
def test_an_item_is_allowed_if_it_is_available_included_and_fulfils_the_conditions(
    asked: Filter | None, allowed: list[int]
) -> None:
    assert rows(asked) == allowed


@pytest.mark.parametrize(
    ("where", "allowed"), [({}, [0, 1, 2]), ({"not": {}}, []), ({"or": [{"and": [{}]}]}, [0, 1, 2])]
)
def test_a_catalog_without_columns_can_be_filtered_by_what_asks_for_none(where: Any, allowed: list[int]) -> None:
    bare = catalog_of(pa.table({}))
    assert rows(Filter(where=where), bare) == allowed
    assert rows(Filter(["a"], where), bare) == [row for row in allowed if row == 0]
    with pytest.raises(RequestError, match=r"no such column\. Known: none\."):
        rows(Filter(where={"n": {"eq": 1}}), bare)


def test_a_filter_that_comes_again_has_the_same_mask_however_it_is_written() -> None:
    masks = FilterMasks(CATALOG, AVAILABLE)
    mask = masks.mask(Filter(["a", "b"], {"n": {"gte": 1, "lte": 2}}))
    assert masks.mask(Filter(("b", "a", "a"), {"n": {"lte": 2, "gte": 1}})) is mask
    assert masks.mask(Filter(["a", "b"], {"n": {"gte": 1}})) is not mask
    assert masks.mask(Filter(["a"], {"n": {"gte": 1, "lte": 2}})) is not mask
    for asked in (None, Filter(), Filter(where={})):
        assert masks.mask(asked) is AVAILABLE


def test_the_least_recently_used_mask_makes_room() -> None:
    masks = FilterMasks(CATALOG, AVAILABLE, max_masks=2)
    one, two, three = (Filter(where={"n": {"eq": number}}) for number in range(3))
    first, second = masks.mask(one), masks.mask(two)
    assert masks.mask(one) is first
    third = masks.mask(three)
    assert (masks.mask(one), masks.mask(three)) == (first, third)
    assert masks.mask(two) is not second
    assert masks.mask(one) is not first


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ([Filter(where={"n": {"eq": number}}) for number in (1, 2)], sys.getsizeof(1)),
        ([Filter([item_id]) for item_id in "ab"], sys.getsizeof("a")),
    ],
)
def test_masks_and_what_their_filters_name_are_bounded_in_bytes_but_the_newest_stays(
    filters: list[Filter], named: int
) -> None:
    both = 2 * (5 * len(CATALOG) + named)
    for max_bytes, kept in ((both, True), (both - 1, False), (0, False)):
        masks = FilterMasks(CATALOG, AVAILABLE, max_bytes=max_bytes)
        first, second = map(masks.mask, filters)
        assert masks.mask(filters[1]) is second
        assert (masks.mask(filters[0]) is first) is kept


def test_a_filter_that_does_not_fit_is_refused_and_not_kept() -> None:
    masks = FilterMasks(CATALOG, AVAILABLE)
    for _ in range(2):
        with pytest.raises(RequestError, match="takes an integer") as caught:
            masks.mask(Filter(where={"n": {"gte": "2"}}))
        assert caught.value.pointer == "/filter/where/n/gte"


# Through the recommender


class Watched:
    """An engine that notes the masks it is given."""

    name = "watched"

    def __init__(self, recommender: Recommender) -> None:
        self.engine, self.masks = recommender.engine, []

    def search(self, queries: list[Query], num_beams: int) -> list[Beam | EngineError]:
        self.masks += [query.allowed.mask for query in queries]
        return self.engine.search(queries, num_beams)


def ask(recommender: Recommender, history: list[str], **fields: Any) -> Answer:
    return recommender.recommend([Request(history, **fields)])[0]


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def fulfilling(recommender: Recommender, since: int) -> set[str]:
    catalog = recommender.bundle.catalog
    return {catalog.item_id(row) for row in range(40) if catalog.describe(row)["year"] >= since}


@pytest.mark.parametrize("width", [2, 6, 50])
@pytest.mark.parametrize("since", [1910, 1930, 1938])
def test_the_answer_is_that_of_a_search_among_the_allowed_items_alone(
    recommender: Recommender, since: int, width: int
) -> None:
    allowed = fulfilling(recommender, since)
    history = ["i1", "i2", "i3"]
    gone = set(ALL) - (allowed - {"i1"} - set(history))
    expected, _ = oracle.beam_search(recommender.bundle, history, width, gone)
    probabilities = oracle.constrained_probabilities(recommender.bundle, history, gone)
    answers = recommender.recommend(
        [
            Request(history, k=min(width, 20), num_beams=width, exclude=["i1"], exclude_history=True, filter=asked)
            for asked in (Filter(where={"year": {"gte": since}}), Filter(sorted(allowed)))
        ]
    )
    for answer in answers:
        best = sorted(expected.items(), key=lambda pair: -pair[1])[:20]
        assert ids(answer) == [item_id for item_id, _ in best]
        assert [item.score for item in answer.items] == pytest.approx([score for _, score in best], abs=1e-4)
        assert [item.probability for item in answer.items] == pytest.approx(
            [probabilities[item_id] for item_id in ids(answer)], abs=1e-4
        )


def test_without_a_known_item_the_popular_ones_that_are_allowed_come(recommender: Recommender) -> None:
    catalog, allowed = recommender.bundle.catalog, fulfilling(recommender, 1930)
    popular = [item_id for row in catalog.most_popular() if (item_id := catalog.item_id(int(row))) in allowed]
    assert ids(ask(recommender, [], k=5, filter=SINCE_1930)) == popular[:5]
    assert ids(ask(recommender, ["x"], k=40, filter=SINCE_1930)) == popular


@pytest.mark.parametrize("asked", [Filter([]), Filter(["x"]), Filter(where={"year": {"lte": 0}})])
def test_where_nothing_is_allowed_the_model_is_not_asked_and_nothing_comes(causal: Recommender, asked: Filter) -> None:
    watched = Watched(causal)
    for history in (["i1"], []):
        answer = ask(replace(causal, engine=watched), history, filter=asked)
        assert (answer.items, answer.exact) == ((), None)
    assert watched.masks == []


def test_requests_with_one_filter_share_a_mask_until_the_availability_changes(causal: Recommender) -> None:
    watched = Watched(causal)
    watching = replace(causal, engine=watched)
    for _ in range(2):
        watching.recommend([Request(["i1"], filter=SINCE_1930), Request(["i2"], exclude=["i3"], filter=SINCE_1930)])
    assert len({id(mask) for mask in watched.masks}) == 1
    row = causal.bundle.catalog.row(ids(ask(watching, ["i1"], filter=SINCE_1930))[0])
    in_stock = np.ones(40, dtype=bool)
    in_stock[row] = False
    later = replace(watching, availability=Availability(1, ItemMask(in_stock)))
    answer = ask(later, ["i1"], k=40, num_beams=50, filter=SINCE_1930)
    expected = fulfilling(causal, 1930) - {"i1", causal.bundle.catalog.item_id(int(row or 0))}
    assert (set(ids(answer)), answer.catalog_version) == (expected, 1)
    assert watched.masks[-1] is not watched.masks[0]


def test_a_filter_is_checked_before_it_is_asked_and_nothing_is_worked_out_for_that(
    causal: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(OneOf, "over", evaluated)
    fresh = replace(causal)
    fresh.validate(Request(["i1"], filter=Filter(["i1"], {"title": {"eq": "x"}})))
    for refuse in (fresh.validate, lambda request: fresh.recommend([request])):
        with pytest.raises(RequestError, match=r"did you mean year\?") as caught:
            refuse(Request(["i1"], filter=Filter(where={"title": {"eq": "x"}, "not": {"yaer": {"gte": 1}}})))
        assert caught.value.pointer == "/filter/where/not"
    assert "_masks" not in vars(fresh)
