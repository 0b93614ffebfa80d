"""The client for programs that wait."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from service.client import calls
from service.client.calls import Call, HistoryEntry, Read, RecommendBody, RecommendFields, ScoreFields
from service.client.errors import ServiceError, TimedOut, Unavailable
from service.client.retries import Attempts, Retries
from service.operations_schemas import Info, ModelCard
from service.schemas import BatchAnswer, Item, ItemList, RecommendAnswer, ScoreAnswer, SimilarItems
from service.tree_schemas import Tree

READY_PAUSE_S = 0.1
PROBE_TIMEOUT_S = 5.0
LEAST_TIMEOUT_S = 0.001
"""A socket with a timeout of 0 would not wait at all, which httpx reports as another error."""


class Client:
    """Asks a service. May be shared by threads; keeps connections open until it is closed.

    What cannot be answered now (429, 503, no connection) is asked again, as the service's `Retry-After` says, never
    beyond `timeout_s`. Every method but the probes raises `ServiceError`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: Retries | int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: of the service, such as `http://127.0.0.1:8000`.
            api_key: sent as `Authorization: Bearer`.
            timeout_s: of a call, all its attempts and waits together, seconds. A reply that comes byte by byte may
                exceed it here: a blocking socket knows a time for each step only.
            retries: how often to ask again; `Retries` says how soon as well.
            transport: another way to the service than the network, for tests.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, transport=transport)
        self._timeout_s = timeout_s
        self._retries = Retries(retries) if isinstance(retries, int) else retries

    def recommend(self, history: Sequence[HistoryEntry], **fields: Unpack[RecommendFields]) -> RecommendAnswer:
        """The next items for a history, best first."""
        return self._ask(calls.recommend(history, fields))

    def recommend_batch(self, requests: Sequence[RecommendBody]) -> BatchAnswer:
        """An answer or a problem for each request, in order."""
        return self._ask(calls.recommend_batch(requests))

    def score(
        self, history: Sequence[HistoryEntry], candidates: Sequence[str], **fields: Unpack[ScoreFields]
    ) -> ScoreAnswer:
        """The exact scores of items that the caller has already."""
        return self._ask(calls.score(history, candidates, fields))

    def items(self, q: str = "", limit: int = 20) -> ItemList:
        """Items whose title holds every word of `q`."""
        return self._ask(calls.items(q, limit))

    def item(self, item_id: str) -> Item:
        """One item."""
        return self._ask(calls.item(item_id))

    def similar(self, item_id: str, limit: int = 20) -> SimilarItems:
        """Items that share leading codes with it."""
        return self._ask(calls.similar(item_id, limit))

    def tree(self, prefix: Sequence[int] = (), limit: int = 100) -> Tree:
        """The children of a prefix of semantic IDs, the most popular first."""
        return self._ask(calls.tree(prefix, limit))

    def bundle(self) -> ModelCard:
        """How good the bundle was measured to be, and its card."""
        return self._ask(calls.bundle())

    def info(self) -> Info:
        """What is served, and what it allows."""
        return self._ask(calls.info())

    def health(self) -> bool:
        """Whether the process answers at all."""
        return not isinstance(self._attempt(calls.HEALTH, PROBE_TIMEOUT_S), ServiceError)

    def ready(self) -> bool:
        """Whether it can answer requests now."""
        return not isinstance(self._attempt(calls.READY, PROBE_TIMEOUT_S), ServiceError)

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the service can answer.

        Raises:
            TimedOut: it cannot after so long; the last reason is in the sentence.
        """
        attempts = Attempts(self._retries, timeout_s)
        while isinstance(outcome := self._attempt(calls.READY, min(PROBE_TIMEOUT_S, attempts.left_s)), ServiceError):
            if attempts.left_s <= READY_PAUSE_S:
                raise TimedOut(f"The service was not ready after {timeout_s:g} s: {outcome}", outcome.problem)
            time.sleep(READY_PAUSE_S)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, call: Call[Read]) -> Read:
        attempts = Attempts(self._retries, self._timeout_s)
        while isinstance(outcome := self._attempt(call, attempts.left_s), ServiceError):
            wait_s = attempts.wait_s(outcome.retry_after_s) if isinstance(outcome, Unavailable) else None
            if wait_s is None:
                raise outcome
            time.sleep(wait_s)
        return outcome

    def _attempt(self, call: Call[Read], timeout_s: float) -> Read | ServiceError:
        step_s = max(timeout_s, LEAST_TIMEOUT_S)
        try:
            reply = self._http.request(call.method, call.path, params=call.query, json=call.body, timeout=step_s)
        except httpx.RequestError as error:
            return calls.no_answer(error)
        return call.read(reply)
