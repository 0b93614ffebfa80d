"""A recommender without a model that can be told to wait, fail or die, and a service around it.

Its catalog, manifest and checks are the real ones; its answer to every history is the most popular items, marked as the
model's.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pyarrow as pa
from fastapi import FastAPI

from genrec.allowed import ItemMask
from genrec.answers import Answer, ScoreAnswer, ScoredCandidate, ScoredItem, Timing
from genrec.availability import Availability
from genrec.bundle import Generation, Manifest, PromptPieces
from genrec.errors import EngineError
from genrec.filters import Filter, FilterMasks
from genrec.recommender import Recommender
from genrec.requests import Request, ScoreRequest
from genrec.semantic_id import Catalog
from genrec.trie import ItemTrie
from service.app import create_app
from service.settings import Settings

BREAKS = "breaks"
"""A history with this id raises what a library would."""
UNANSWERABLE = "unanswerable"
"""A history with this id gets an EngineError in its place."""
KILLS = "kills"
"""A history with this id ends the thread."""
HANGS = "hangs"
"""A history with this id never comes back."""

MAX_K, MAX_HISTORY_ITEMS = 20, 5


def small_catalog() -> Catalog:
    """Twelve items on a 3 × 2 × 2 tree, in path order; the item in row 7 is the most popular."""
    codes = np.array([[a, b, c] for a in range(3) for b in range(2) for c in range(2)], dtype=np.int32)
    item_ids = [str(row) for row in range(10)] + ["films/alien?", "é🎬"]
    titles = ["Star Wars", "Wars of Stars", "The Star", "Mustard", "Alien", "Aliens", None, "Fargo", "Brazil", "Ran"]
    metadata = pa.table(
        {
            "title": [*titles, "Alien Director's Cut", "Amélie"],
            "year": [1977 + row for row in range(12)],
            "genres": [["Drama"]] * 12,
        }
    )
    popularity = np.array([3, 9, 1, 4, 5, 2, 6, 50, 3, 8, 7, 0])
    return Catalog(pa.array(item_ids), codes, popularity, metadata)


def small_manifest() -> Manifest:
    return Manifest(
        name="small",
        version="0123456789ab",
        created_at="2026-11-24T00:00:00+00:00",
        architecture="causal",
        num_levels=3,
        codebook_sizes=(3, 2, 2),
        item_token_ids=((10, 11, 12), (13, 14), (15, 16)),
        prompt=PromptPieces(max_history_items=MAX_HISTORY_ITEMS),
        decoder_prefix_ids=(),
        generation=Generation(num_beams=10, max_k=MAX_K),
        dtype="float32",
    )


@dataclass(frozen=True, eq=False)
class FakeBundle:
    catalog: Catalog = field(default_factory=small_catalog)
    manifest: Manifest = field(default_factory=small_manifest)
    path: Path = Path("bundles/small")

    @property
    def trie(self) -> ItemTrie:
        """Of the codes themselves: every code is its own token."""
        return ItemTrie.from_sorted(self.catalog.codes)


@dataclass(eq=False)
class FakeRecommender:
    """Answers at once unless its gate is closed. As of the real one, `replace` makes one that shares all but a field.

    Attributes:
        asked: every call, as the model saw it.
        gate: closed, the model computes until it opens.
        entered: set when the model begins to compute.
    """

    bundle: FakeBundle = field(default_factory=FakeBundle)
    availability: Availability = field(default_factory=lambda: Availability(0, ItemMask.everything(12)))
    max_proof_beams: int = 1024
    asked: list[list[Request | ScoreRequest]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    entered: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=lambda: opened(threading.Event()))

    device = "cpu"
    dtype = "float32"
    engine_name = "fake"
    max_num_beams = Recommender.max_num_beams
    validate = Recommender.validate
    validate_score = Recommender.validate_score
    recommend = Recommender.recommend

    @property
    def computed(self) -> int:
        """How many requests reached the model."""
        return sum(map(len, self.asked))

    def beam_rows(self, request: Request) -> int:
        """As the real one, but one where nothing is said: tests count requests."""
        return request.num_beams or 1

    def attempt(self, requests: Sequence[Request]) -> list[Answer | EngineError]:
        self._compute(requests)
        return [self._answer(request) for request in requests]

    def knows(self, asked: Filter | None) -> bool:
        """As if a real one had every filter."""
        return True

    def explain(self, request: Request) -> Answer:
        """An answer without an explanation, as of a history that the model is not asked about."""
        [answer] = self.recommend([request])
        return answer

    def score(self, request: ScoreRequest) -> ScoreAnswer:
        """Candidates score by their popularity; those that the filter does not let through have no probability."""
        self._compute([request])
        _misbehave(request.history)
        if UNANSWERABLE in request.history:
            raise EngineError("the model gave a score that is not finite.")
        catalog = self.bundle.catalog
        known = [row for item_id in request.history if (row := catalog.row(item_id)) is not None]
        allowed = FilterMasks(catalog, self.availability.mask).mask(request.filter).allowed.copy()
        if request.exclude_history:
            allowed[known] = False
        rows = [(item_id, row) for item_id in request.candidates if (row := catalog.row(item_id)) is not None]
        return ScoreAnswer(
            items=tuple(
                ScoredCandidate(item_id, -1 / (1 + int(catalog.popularity[row])), 0.5 if allowed[row] else 0.0)
                if known
                else ScoredCandidate(item_id, None, None)
                for item_id, row in rows
            ),
            unknown_candidates=tuple(item_id for item_id in request.candidates if catalog.row(item_id) is None),
            history_used=min(len(known), MAX_HISTORY_ITEMS),
            unknown_items=tuple(item_id for item_id in request.history if catalog.row(item_id) is None),
            truncated=len(known) > MAX_HISTORY_ITEMS,
            catalog_version=self.availability.version,
            timing=Timing(encode_ms=0.25, decode_ms=1.5),
        )

    def _compute(self, requests: Sequence[Request | ScoreRequest]) -> None:
        self.asked.append(list(requests))
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        self.gate.wait()

    def _answer(self, request: Request) -> Answer | EngineError:
        _misbehave(request.history)
        if UNANSWERABLE in request.history:
            return EngineError("the model gave a score that is not finite.")
        catalog = self.bundle.catalog
        known = [row for item_id in request.history if (row := catalog.row(item_id)) is not None]
        mask = FilterMasks(catalog, self.availability.mask).mask(request.filter)
        rows = [int(row) for row in catalog.most_popular() if mask.allowed[row]]
        rows = [row for row in rows if catalog.item_id(row) not in request.exclude]
        if request.exclude_history is not False:
            rows = [row for row in rows if row not in known]
        if not known and request.fallback == "none":
            rows = []
        return Answer(
            items=tuple(self._item(row, place, bool(known)) for place, row in enumerate(rows[: request.k])),
            history_used=min(len(known), MAX_HISTORY_ITEMS),
            unknown_items=tuple(item_id for item_id in request.history if catalog.row(item_id) is None),
            truncated=len(known) > MAX_HISTORY_ITEMS,
            exact=True if known else None,
            catalog_version=self.availability.version,
            timing=Timing(encode_ms=0.25, decode_ms=1.5),
        )

    def _item(self, row: int, place: int, from_model: bool) -> ScoredItem:
        catalog = self.bundle.catalog
        if not from_model:
            return ScoredItem(catalog.item_id(row), row, catalog.semantic_id(row), None, None, "popular")
        return ScoredItem(catalog.item_id(row), row, catalog.semantic_id(row), -0.5 - place, 0.5**place, "model")


def _misbehave(history: Sequence[str]) -> None:
    if BREAKS in history:
        raise RuntimeError(f"CUDA error at 0xdeadbeef in /opt/lib for {history}")
    if HANGS in history:
        threading.Event().wait()
    if KILLS in history:
        raise SystemExit(3)


def opened(gate: threading.Event) -> threading.Event:
    gate.set()
    return gate


def some_settings(**changes: Any) -> Settings:
    return Settings(**{"bundle": Path("bundles/small"), **changes})


@dataclass(frozen=True)
class Running:
    """A service with its lifespan begun.

    Attributes:
        ended: the exit codes that the service ended its process with.
    """

    app: FastAPI
    client: httpx.AsyncClient
    recommender: FakeRecommender
    ended: list[int]

    async def recommend(self, *history: str, **fields: Any) -> httpx.Response:
        return await self.client.post("/recommend", json={"history": list(history), **fields})

    async def score(self, history: Sequence[str], candidates: Sequence[str], **fields: Any) -> httpx.Response:
        body = {"history": list(history), "candidates": list(candidates), **fields}
        return await self.client.post("/v1/score", json=body)

    async def metric(self, sample: str) -> float:
        """The value of one sample, e.g. `genrec_rejected_total{reason="overloaded"}`; 0 if there is none."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == sample), 0.0)

    @property
    def depth(self) -> int:
        return self.app.state.service.inference.depth


@asynccontextmanager
async def serving(
    *, load: Callable[..., object] | None = None, until: str | None = "ready", **settings: Any
) -> AsyncIterator[Running]:
    """A service in this process, in its state `until`; without until, just begun."""
    recommender = FakeRecommender()
    ended: list[int] = []
    loader = load or (lambda *_, **__: recommender)
    app = create_app(some_settings(**settings), cast("Callable[..., Recommender]", loader), ended.append)
    # raise_app_exceptions: an exception that leaves the application is a failure of the test
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        running = Running(app, client, recommender, ended)
        if until:
            await eventually(lambda: app.state.service.inference.state == until)
        try:
            yield running
        finally:
            recommender.gate.set()


async def eventually(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


JSON = ((b"content-type", b"application/json"),)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, refused if it is not JSON to the letter."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} in a reply")

        return json.loads(self.body, parse_constant=refuse)


async def send_raw(
    app: FastAPI,
    body: bytes | Iterable[bytes],
    *,
    path: str = "/recommend",
    method: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = JSON,
) -> Reply:
    """One request as bare ASGI messages: bytes no client library would send, and quicker. Chunks are drawn as read."""

    def received() -> Iterator[dict[str, Any]]:
        for chunk in [body] if isinstance(body, bytes) else body:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    messages = received()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        if message is None:
            await asyncio.Event().wait()
        return cast(dict[str, Any], message)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": list(headers),
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    names = [name.decode() for name, _ in sent[0]["headers"]]
    assert len(names) == len(set(names)), "a header twice"
    return Reply(
        sent[0]["status"],
        {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
