"""The client for programs on an event loop: `service.client.synchronous`, awaited."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from service.client import calls
from service.client.calls import Call, HistoryEntry, Read, RecommendBody, RecommendFields, ScoreFields
from service.client.errors import ServiceError, TimedOut, Unavailable
from service.client.retries import Attempts, Retries
from service.client.synchronous import PROBE_TIMEOUT_S, READY_PAUSE_S
from service.operations_schemas import Info, ModelCard
from service.schemas import BatchAnswer, Item, ItemList, RecommendAnswer, ScoreAnswer, SimilarItems
from service.tree_schemas import Tree


class AsyncClient:
    """Asks a service. May be shared by tasks of one loop; keeps connections open until it is closed.

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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: of the service, such as `http://127.0.0.1:8000`.
            api_key: sent as `Authorization: Bearer`.
            timeout_s: of a call, all its attempts and waits together, seconds.
            retries: how often to ask again; `Retries` says how soon as well.
            transport: another way to the service than the network, for tests.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, transport=transport)
        self._timeout_s = timeout_s
        self._retries = Retries(retries) if isinstance(retries, int) else retries

    async def recommend(self, history: Sequence[HistoryEntry], **fields: Unpack[RecommendFields]) -> RecommendAnswer:
        """The next items for a history, best first."""
        return await self._ask(calls.recommend(history, fields))

    async def recommend_batch(self, requests: Sequence[RecommendBody]) -> BatchAnswer:
        """An answer or a problem for each request, in order."""
        return await self._ask(calls.recommend_batch(requests))

    async def score(
        self, history: Sequence[HistoryEntry], candidates: Sequence[str], **fields: Unpack[ScoreFields]
    ) -> ScoreAnswer:
        """The exact scores of items that the caller has already."""
        return await self._ask(calls.score(history, candidates, fields))

    async def items(self, q: str = "", limit: int = 20) -> ItemList:
        """Items whose title holds every word of `q`."""
        return await self._ask(calls.items(q, limit))

    async def item(self, item_id: str) -> Item:
        """One item."""
        return await self._ask(calls.item(item_id))

    async def similar(self, item_id: str, limit: int = 20) -> SimilarItems:
        """Items that share leading codes with it."""
        return await self._ask(calls.similar(item_id, limit))

    async def tree(self, prefix: Sequence[int] = (), limit: int = 100) -> Tree:
        """The children of a prefix of semantic IDs, the most popular first."""
        return await self._ask(calls.tree(prefix, limit))

    async def bundle(self) -> ModelCard:
        """How good the bundle was measured to be, and its card."""
        return await self._ask(calls.bundle())

    async def info(self) -> Info:
        """What is served, and what it allows."""
        return await self._ask(calls.info())

    async def health(self) -> bool:
        """Whether the process answers at all."""
        return not isinstance(await self._attempt(calls.HEALTH, PROBE_TIMEOUT_S), ServiceError)

    async def ready(self) -> bool:
        """Whether it can answer requests now."""
        return not isinstance(await self._attempt(calls.READY, PROBE_TIMEOUT_S), ServiceError)

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the service can answer.

        Raises:
            TimedOut: it cannot after so long; the last reason is in the sentence.
        """
        attempts = Attempts(self._retries, timeout_s)
        while isinstance(
            outcome := await self._attempt(calls.READY, min(PROBE_TIMEOUT_S, attempts.left_s)), ServiceError
        ):
            if attempts.left_s <= READY_PAUSE_S:
                raise TimedOut(f"The service was not ready after {timeout_s:g} s: {outcome}", outcome.problem)
            await asyncio.sleep(READY_PAUSE_S)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: Call[Read]) -> Read:
        attempts = Attempts(self._retries, self._timeout_s)
        while isinstance(outcome := await self._attempt(call, attempts.left_s), ServiceError):
            wait_s = attempts.wait_s(outcome.retry_after_s) if isinstance(outcome, Unavailable) else None
            if wait_s is None:
                raise outcome
            await asyncio.sleep(wait_s)
        return outcome

    async def _attempt(self, call: Call[Read], timeout_s: float) -> Read | ServiceError:
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._http.request(
                    call.method, call.path, params=call.query, json=call.body, timeout=None
                )
        except (httpx.RequestError, TimeoutError) as error:
            return calls.no_answer(error)
        return call.read(reply)
