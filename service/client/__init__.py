"""A client of the service: `Client`, `AsyncClient`, and the errors they raise.

Needs httpx and pydantic, and of this project the wire types alone.
"""

from service.client.asynchronous import AsyncClient
from service.client.calls import RecommendBody, RecommendFields, ScoreFields
from service.client.errors import ServiceError, TimedOut, Unavailable
from service.client.retries import Retries
from service.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Client",
    "RecommendBody",
    "RecommendFields",
    "Retries",
    "ScoreFields",
    "ServiceError",
    "TimedOut",
    "Unavailable",
]
