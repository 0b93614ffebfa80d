"""The recommender: a history of item ids in, scored items out.

The one door for serving, batch scoring and evaluation, so that what was measured offline is what answers online. Knows
no HTTP. Not thread-safe: one thread at a time may call `recommend`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np

from genrec.allowed import AllowedItems, ItemMask
from genrec.answers import Answer, ScoreAnswer, ScoredCandidate, ScoredItem, Timing
from genrec.availability import Availability
from genrec.bundle import Bundle, load_bundle
from genrec.decoding.engine import Beam, Engine, Query
from genrec.decoding.engines import check_engine, make_engine
from genrec.decoding.explain import Explanation, explain
from genrec.decoding.faults import named_faults
from genrec.decoding.prove import Search, search_proven
from genrec.errors import BundleError, EngineError, RequestError, one_line
from genrec.filters import Filter, FilterMasks
from genrec.golden import check_golden, read_golden
from genrec.known_items import KnownItems
from genrec.requests import Request, ScoreRequest

MAX_PROOF_BEAMS = 1024
"""How wide a search is made to prove its answer, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request in terms of rows."""

    request: Request
    history: KnownItems
    allowed: AllowedItems

    @property
    def asks_model(self) -> bool:
        return bool(self.history.rows) and len(self.allowed) > 0


@dataclass(frozen=True, eq=False)
class Recommender:
    """A bundle and an engine.

    Attributes:
        bundle: what is served.
        engine: what searches.
        device: where the model is.
        availability: which items are in stock. `dataclasses.replace` gives a recommender with another; it shares
            everything else, so a swap between two calls is atomic.
        max_proof_beams: the widest beam that a request to prove its answer may take; 0 refuses such requests.
    """

    bundle: Bundle
    engine: Engine
    device: str
    availability: Availability
    max_proof_beams: int = MAX_PROOF_BEAMS

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        engine: str = "auto",
        golden: bool = True,
        max_proof_beams: int = MAX_PROOF_BEAMS,
        expect_version: str | None = None,
    ) -> Self:
        """Load a sealed bundle, verify it, and replay its golden answers.

        Args:
            path: the bundle's directory.
            device: auto, cpu, cuda or cuda:N.
            dtype: auto (float32 on CPU, the manifest's elsewhere), float32, bfloat16 or float16.
            engine: auto, beam (ours) or generate (Hugging Face); auto is beam wherever it can read the model.
            golden: False skips the replay, for tools that want to look at a bundle that fails it.
            max_proof_beams: see the attribute.
            expect_version: refuse a bundle of any other version before its files are read; None takes any.

        Raises:
            BundleError: the bundle is refused; the sentence names the file or item.
            InputError: device, dtype or engine cannot be had.
        """
        check_engine(engine)
        bundle = load_bundle(path, device=device, dtype=dtype, expect_version=expect_version)
        recommender = cls.of(bundle, engine=engine, max_proof_beams=max_proof_beams)
        if golden:
            recommender.replay_golden()
        return recommender

    @classmethod
    def of(cls, bundle: Bundle, *, engine: str = "auto", max_proof_beams: int = MAX_PROOF_BEAMS) -> Self:
        """A recommender over a bundle that is loaded already, e.g. a draft under evaluation."""
        chosen = make_engine(
            engine,
            bundle.model,
            bundle.trie,
            decoder_prefix_ids=bundle.manifest.decoder_prefix_ids,
            length_penalty=bundle.manifest.generation.length_penalty,
            longest_prompt=bundle.encoder.max_prompt_tokens,
            inputs=bundle.model_inputs,
        )
        everything = Availability(0, ItemMask.everything(len(bundle.catalog)))
        return cls(bundle, chosen, str(bundle.model.device), everything, max_proof_beams)

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
        if request.prove_exact and not self.max_proof_beams:
            raise RequestError("Answers are not proven here: max_proof_beams is 0.", "/prove_exact")
        if request.filter is not None:
            request.filter.predicate(self.bundle.catalog.columns)

    def validate_score(self, request: ScoreRequest) -> None:
        """As `validate`, for candidates.

        Raises:
            RequestError: with the field's JSON pointer.
        """
        if request.filter is not None:
            request.filter.predicate(self.bundle.catalog.columns)

    def knows(self, asked: Filter | None) -> bool:
        """Whether a request with this filter, which `validate` has passed, needs no pass over the catalog."""
        return self._masks.knows(asked)

    def prepare(self, asked: Filter | None) -> None:
        """Work out a filter that requests will come with. The one thing that any thread may do at any time."""
        _ = self._masks.mask(asked).before

    def beam_rows(self, request: Request) -> int:
        """How many beams the answer holds at once at most: what it costs, in memory and in time."""
        return self.max_proof_beams if request.prove_exact else self._num_beams(request)

    def replay_golden(self) -> None:
        """Ask the bundle's golden requests again.

        Raises:
            BundleError: an answer is not what it was when the bundle was sealed.
        """
        golden = read_golden(self.bundle)
        try:
            answers = self.recommend([Request.from_json(answer.request) for answer in golden])
        except RequestError as error:
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
            OutOfMemory: they are too many for the memory; fewer of them may fit.
            EngineLost: the device cannot be used again.
        """
        begin = time.perf_counter()
        plans = [self._plan(request) for request in requests]
        searches = {index: self._search(plan) for index, plan in enumerate(plans) if plan.asks_model}
        encoded = time.perf_counter()
        with named_faults():
            beams = dict(zip(searches, search_proven(self.engine, list(searches.values())), strict=True))
        timing = Timing((encoded - begin) * 1e3, (time.perf_counter() - encoded) * 1e3)
        return [
            beam if isinstance(beam := beams.get(index), EngineError) else self._answer(plan, beam, timing)
            for index, plan in enumerate(plans)
        ]

    def explain(self, request: Request) -> Answer:
        """As `recommend` for one request, slower, with `Answer.explanation`: the search that found these very items.

        Raises:
            RequestError: the request asks for what cannot be had.
            EngineError: the model gave a value that is not finite.
        """
        begin = time.perf_counter()
        plan = self._plan(request)
        search = self._search(plan) if plan.asks_model else None
        encoded = time.perf_counter()
        with named_faults():
            beam, explanation = (None, None) if search is None else self._explained(search, search.num_beams)
        timing = Timing((encoded - begin) * 1e3, (time.perf_counter() - encoded) * 1e3)
        return replace(self._answer(plan, beam, timing), explanation=explanation)

    def score(self, request: ScoreRequest) -> ScoreAnswer:
        """The exact score of each candidate, without a search: the prompt is read once, however many there are.

        Raises:
            RequestError: the filter does not fit the catalog.
            EngineError: the model gave a value that is not finite.
        """
        begin = time.perf_counter()
        history, candidates = self._known(request.history), self._known(request.candidates)
        allowed = self._allowed(history.rows if request.exclude_history else (), request.filter)
        query = Query(self.bundle.encoder.encode(history.rows), allowed)
        encoded = time.perf_counter()
        scores: Sequence[float | None] = [None] * len(candidates.rows)
        probabilities = scores
        if history.rows and candidates.rows:
            with named_faults():
                found = self.engine.score(query, np.array(candidates.rows, dtype=np.int64))
            scores, probabilities = found.scores.tolist(), np.exp(found.log_probabilities).tolist()
        return ScoreAnswer(
            items=tuple(map(ScoredCandidate, candidates.item_ids, scores, probabilities)),
            unknown_candidates=candidates.unknown,
            history_used=self._used(history),
            unknown_items=history.unknown,
            truncated=self._used(history) < len(history.rows),
            catalog_version=self.availability.version,
            timing=Timing((encoded - begin) * 1e3, (time.perf_counter() - encoded) * 1e3),
        )

    @cached_property
    def _masks(self) -> FilterMasks:
        # Of this availability alone: one that `replace` gives begins with none.
        return FilterMasks(self.bundle.catalog, self.availability.mask)

    def _num_beams(self, request: Request) -> int:
        return request.num_beams or max(self.bundle.manifest.generation.num_beams, request.k)

    def _known(self, item_ids: Sequence[str]) -> KnownItems:
        return KnownItems.of(item_ids, self.bundle.catalog)

    def _used(self, history: KnownItems) -> int:
        return min(len(history.rows), self.bundle.encoder.prompt.max_history_items)

    def _plan(self, request: Request) -> _Plan:
        self.validate(request)
        history = self._known(request.history)
        exclude_history = request.exclude_history
        if exclude_history is None:
            exclude_history = self.bundle.manifest.generation.exclude_history
        excluded = (*self._known(request.exclude).rows, *(history.rows if exclude_history else ()))
        return _Plan(request, history, self._allowed(excluded, request.filter))

    def _allowed(self, excluded: Sequence[int], asked: Filter | None) -> AllowedItems:
        return AllowedItems.all_but(excluded, self._masks.mask(asked))

    def _search(self, plan: _Plan) -> Search:
        request = plan.request
        num_beams = self._num_beams(request)
        return Search(
            Query(self.bundle.encoder.encode(plan.history.rows), plan.allowed),
            request.k,
            num_beams,
            max_beams=self.max_proof_beams if request.prove_exact else num_beams,
        )

    def _explained(self, search: Search, num_beams: int) -> tuple[Beam, Explanation]:
        """Of the last search, where a request for proof takes several."""
        beam, explanation = explain(
            self.engine.steps(search.query, num_beams),
            self.bundle.trie,
            self.bundle.catalog.codes,
            search.query.allowed,
            num_beams,
            self.bundle.manifest.generation.length_penalty,
        )
        wider = search.next_width(num_beams, beam)
        return (beam, explanation) if wider is None else self._explained(search, wider)

    def _answer(self, plan: _Plan, beam: Beam | None, timing: Timing) -> Answer:
        k = plan.request.k
        if beam is not None:
            probabilities = np.exp(beam.log_probabilities)
            items = tuple(
                self._item(int(row), float(score), float(probability))
                for row, score, probability in zip(beam.rows[:k], beam.scores[:k], probabilities[:k], strict=True)
            )
        elif plan.request.fallback == "popular":
            popular = plan.allowed.first(self.bundle.catalog.most_popular(), k)
            items = tuple(self._item(int(row), None, None) for row in popular)
        else:
            items = ()
        return Answer(
            items=items,
            history_used=self._used(plan.history),
            unknown_items=plan.history.unknown,
            truncated=self._used(plan.history) < len(plan.history.rows),
            exact=None if beam is None else beam.proves(k),
            catalog_version=self.availability.version,
            timing=timing,
        )

    def _item(self, row: int, score: float | None, probability: float | None) -> ScoredItem:
        catalog = self.bundle.catalog
        source: Literal["model", "popular"] = "popular" if score is None else "model"
        return ScoredItem(catalog.item_id(row), row, catalog.semantic_id(row), score, probability, source)
