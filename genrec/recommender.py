"""The recommender: a history of item ids in, scored items out.

The one door for serving, batch scoring and evaluation, so that what was measured offline is what answers online. Knows
no HTTP. Not thread-safe: one thread at a time may call `recommend`.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np

from genrec.allowed import AllowedItems, ItemMask
from genrec.availability import Availability
from genrec.bundle import Bundle, load_bundle
from genrec.decoding.engine import Beam, Engine, Query
from genrec.decoding.engines import check_engine, make_engine
from genrec.errors import BundleError, EngineError, RequestError, one_line
from genrec.filters import Filter, FilterMasks
from genrec.golden import check_golden, read_golden
from genrec.semantic_id import SemanticId


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks.

    Attributes:
        history: item ids, oldest first. Unknown ones are dropped and listed, then the newest are kept.
        k: how many items to answer; exactly min(k, allowed items) come back.
        exclude: item ids not to answer.
        exclude_history: whether nothing of `history`, as sent, is answered; None leaves it to the bundle.
        num_beams: the width of the search, at least k; None is the larger of the bundle's and k.
        fallback: what a history without a known item is answered with: the most popular items, or nothing.
        filter: which items may be answered; None allows all.
    """

    history: Sequence[str]
    k: int = 10
    exclude: Sequence[str] = ()
    exclude_history: bool | None = None
    num_beams: int | None = None
    fallback: Literal["popular", "none"] = "popular"
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """One item of an answer. `score` and `probability` are None for an item that did not come from the model."""

    item_id: str
    row: int
    semantic_id: SemanticId
    score: float | None
    probability: float | None
    source: Literal["model", "popular"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds spent on the batch that a request was part of."""

    encode_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The items for one request, best first.

    Attributes:
        items: min(k, allowed items) of them, distinct.
        history_used: how many items of the history the model saw.
        unknown_items: ids of the history that the catalog does not have, in order.
        truncated: whether older items of the history were left out.
        exact: whether no other allowed item can score higher than the last one given; None without a model.
        catalog_version: of the availability that the answer was made under.
        timing: of the batch.
    """

    items: tuple[ScoredItem, ...]
    history_used: int
    unknown_items: tuple[str, ...]
    truncated: bool
    exact: bool | None
    catalog_version: int
    timing: Timing

    @property
    def scored_list(self) -> list[tuple[str, float]]:
        """Item ids and scores of the items that came from the model."""
        return [(item.item_id, item.score) for item in self.items if item.score is not None]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request in terms of rows."""

    request: Request
    rows: tuple[int, ...]
    unknown_items: tuple[str, ...]
    allowed: AllowedItems
    num_beams: int

    @property
    def asks_model(self) -> bool:
        return bool(self.rows) and len(self.allowed) > 0


@dataclass(frozen=True, eq=False)
class Recommender:
    """A bundle and an engine.

    Attributes:
        bundle: what is served.
        engine: what searches.
        device: where the model is.
        availability: which items are in stock. `dataclasses.replace` gives a recommender with another; it shares
            everything else, so a swap between two calls is atomic.
    """

    bundle: Bundle
    engine: Engine
    device: str
    availability: Availability

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "auto", dtype: str = "auto", engine: str = "auto", golden: bool = True
    ) -> Self:
        """Load a sealed bundle, verify it, and replay its golden answers.

        Args:
            path: the bundle's directory.
            device: auto, cpu, cuda or cuda:N.
            dtype: auto (float32 on CPU, the manifest's elsewhere), float32, bfloat16 or float16.
            engine: auto, beam (ours) or generate (Hugging Face); auto is beam wherever it can read the model.
            golden: False skips the replay, for tools that want to look at a bundle that fails it.

        Raises:
            BundleError: the bundle is refused; the sentence names the file or item.
            InputError: device, dtype or engine cannot be had.
        """
        check_engine(engine)
        recommender = cls.of(load_bundle(path, device=device, dtype=dtype), engine=engine)
        if golden:
            recommender.replay_golden()
        return recommender

    @classmethod
    def of(cls, bundle: Bundle, *, engine: str = "auto") -> Self:
        """A recommender over a bundle that is loaded already, e.g. a draft under evaluation."""
        manifest = bundle.manifest
        chosen = make_engine(
            engine,
            bundle.model,
            bundle.trie,
            decoder_prefix_ids=manifest.decoder_prefix_ids,
            length_penalty=manifest.generation.length_penalty,
            longest_prompt=bundle.encoder.max_prompt_tokens,
        )
        everything = Availability(0, ItemMask.everything(len(bundle.catalog)))
        return cls(bundle, chosen, str(bundle.model.device), everything)

    @property
    def dtype(self) -> str:
        """What the weights are served as."""
        return self.bundle.dtype

    @property
    def engine_name(self) -> str:
        """Which engine searches."""
        return self.engine.name

    @property
    def max_num_beams(self) -> int:
        """The widest search that a request may ask for."""
        return max(self.bundle.manifest.generation.num_beams, self.bundle.manifest.generation.max_k)

    def validate(self, request: Request) -> None:
        """Check what can be checked without the model.

        Raises:
            RequestError: with the field's JSON pointer.
        """
        max_k = self.bundle.manifest.generation.max_k
        if not 1 <= request.k <= max_k:
            raise RequestError(f"k must be from 1 to {max_k}.", "/k")
        if request.num_beams is not None:
            if request.num_beams < request.k:
                raise RequestError(
                    "num_beams must be at least k: a beam cannot return more than it holds.", "/num_beams"
                )
            if request.num_beams > self.max_num_beams:
                raise RequestError(f"num_beams may be at most {self.max_num_beams}.", "/num_beams")
        if request.filter is not None:
            request.filter.predicate(self.bundle.catalog.columns)

    def replay_golden(self) -> None:
        """Ask the bundle's golden requests again.

        Raises:
            BundleError: an answer is not what it was when the bundle was sealed.
        """
        golden = read_golden(self.bundle)
        try:
            answers = self.recommend([Request(**answer.request) for answer in golden])
        except (RequestError, TypeError) as error:
            raise BundleError(
                f"file golden.jsonl holds a request that this bundle refuses: {one_line(error)}"
            ) from error
        check_golden(self.bundle, golden, [answer.scored_list for answer in answers])

    def recommend(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests, in order. A request's answer does not depend on what it is batched with.

        Raises:
            RequestError: a request asks for what cannot be had.
            EngineError: the model gave a value that is not finite.
        """
        answers = self.attempt(requests)
        for answer in answers:
            if isinstance(answer, EngineError):
                raise answer
        return [answer for answer in answers if isinstance(answer, Answer)]

    def attempt(self, requests: Sequence[Request]) -> list[Answer | EngineError]:
        """As `recommend`, but a request that the model fails at gets its error in its place, alone.

        Raises:
            RequestError: a request asks for what cannot be had.
        """
        begin = time.perf_counter()
        plans = [self._plan(request) for request in requests]
        queries = {
            index: Query(self.bundle.encoder.encode(plan.rows), plan.allowed)
            for index, plan in enumerate(plans)
            if plan.asks_model
        }
        encoded = time.perf_counter()
        beams = self._search(queries, plans)
        timing = Timing((encoded - begin) * 1e3, (time.perf_counter() - encoded) * 1e3)
        return [
            beam if isinstance(beam := beams.get(index), EngineError) else self._answer(plan, beam, timing)
            for index, plan in enumerate(plans)
        ]

    @cached_property
    def _masks(self) -> FilterMasks:
        # Of this availability alone: one that `replace` gives begins with none.
        return FilterMasks(self.bundle.catalog, self.availability.mask)

    def _plan(self, request: Request) -> _Plan:
        self.validate(request)
        catalog, defaults = self.bundle.catalog, self.bundle.manifest.generation
        found = [(item_id, catalog.row(item_id)) for item_id in request.history]
        rows = tuple(row for _, row in found if row is not None)
        exclude_history = defaults.exclude_history if request.exclude_history is None else request.exclude_history
        excluded = {row for item_id in request.exclude if (row := catalog.row(item_id)) is not None}
        return _Plan(
            request,
            rows,
            tuple(item_id for item_id, row in found if row is None),
            AllowedItems.all_but(
                excluded | (set(rows) if exclude_history else set()), self._masks.mask(request.filter)
            ),
            request.num_beams or max(defaults.num_beams, request.k),
        )

    def _search(self, queries: dict[int, Query], plans: Sequence[_Plan]) -> dict[int, Beam | EngineError]:
        by_width: dict[int, list[int]] = defaultdict(list)
        for index in queries:
            by_width[plans[index].num_beams].append(index)
        beams: dict[int, Beam | EngineError] = {}
        for width, indices in by_width.items():
            found = self.engine.search([queries[index] for index in indices], width)
            beams |= zip(indices, found, strict=True)
        return beams

    def _answer(self, plan: _Plan, beam: Beam | None, timing: Timing) -> Answer:
        k = plan.request.k
        if beam is not None:
            probabilities = np.exp(beam.log_probabilities)
            items = tuple(
                self._item(int(row), float(score), float(probability))
                for row, score, probability in zip(beam.rows[:k], beam.scores[:k], probabilities[:k], strict=True)
            )
        elif plan.request.fallback == "popular":
            popular = plan.allowed.select(self.bundle.catalog.most_popular())[:k]
            items = tuple(self._item(int(row), None, None) for row in popular)
        else:
            items = ()
        limit = self.bundle.encoder.prompt.max_history_items
        return Answer(
            items=items,
            history_used=min(len(plan.rows), limit),
            unknown_items=plan.unknown_items,
            truncated=len(plan.rows) > limit,
            exact=None if beam is None else beam.proves(k),
            catalog_version=self.availability.version,
            timing=timing,
        )

    def _item(self, row: int, score: float | None, probability: float | None) -> ScoredItem:
        catalog = self.bundle.catalog
        source: Literal["model", "popular"] = "popular" if score is None else "model"
        return ScoredItem(catalog.item_id(row), row, catalog.semantic_id(row), score, probability, source)
