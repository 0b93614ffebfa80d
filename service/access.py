"""Who may come in: API keys, administrators' tokens, the tokens of /metrics, and what becomes of wrong ones.

A pure ASGI layer that denies by default: a route is closed because it was not named here, so none can be forgotten. It
looks at the method and the path that the router sees, to the letter, and at the peer of the socket, which no header can
change.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import monotonic
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import TooManyAttempts, Unauthorized
from service.middleware import record_of
from service.playground import PREFIX as UI
from service.playground import read_assets
from service.probes import PROBES
from service.refusals import refused
from service.settings import Settings
from service.tokens import TokenFile, Tokens

REFRESH_S = 1.0
"""How often the files are looked at."""
METRICS = ("GET", "/metrics")

_SCHEME = b"bearer "


@dataclass(frozen=True, slots=True)
class Attempts:
    """Wrong tokens by peer, in a sliding window, in bounded memory: the peers that were quiet longest are forgotten.

    Attributes:
        allowed: of a peer, in any window.
        window_s: seconds.
        max_peers: remembered at once.
    """

    allowed: int = 10
    window_s: float = 60.0
    max_peers: int = 4_096
    clock: Callable[[], float] = monotonic
    _wrong: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict, repr=False)

    def another(self, peer: str) -> float:
        """Note a wrong token of `peer`. Returns seconds until it may send the next, 0 if that was not one too many."""
        now = self.clock()
        times = self._wrong.setdefault(peer, deque())
        self._wrong.move_to_end(peer)
        if len(self._wrong) > self.max_peers:
            self._wrong.popitem(last=False)
        while times and times[0] <= now - self.window_s:
            times.popleft()
        if len(times) >= self.allowed:
            return times[0] + self.window_s - now
        times.append(now)
        return 0.0


@dataclass(frozen=True, slots=True)
class Access:
    """The files of secrets of a service, and the wrong tokens of its peers.

    Attributes:
        keys: open everything of the main application; None lets anyone in.
        metrics: open /metrics beside the keys; None adds none.
        admin: open the admin application.
        attempts: on all listeners together.
    """

    keys: TokenFile | None = None
    metrics: TokenFile | None = None
    admin: TokenFile | None = None
    attempts: Attempts = field(default_factory=Attempts)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Read the files that the settings name.

        Raises:
            InputError: one of them protects nothing.
        """
        return cls(
            keys=_read(settings.api_keys_file),
            metrics=_read(settings.metrics_token_file),
            admin=_read(settings.admin_token_file),
        )

    async def keep_fresh(self) -> None:
        """Read files again when they change, for ever, away from the event loop."""
        while files := [file for file in (self.keys, self.metrics, self.admin) if file is not None]:
            await asyncio.sleep(REFRESH_S)
            for file in files:
                await asyncio.to_thread(file.refresh)


@dataclass(frozen=True, slots=True)
class Doors:
    """What each path of an application asks for.

    Attributes:
        rest: opens whatever is not named below; None needs nothing.
        open: (method, path) that need nothing.
        own: (method, path) -> tokens that open it beside those of `rest`. Without `rest`, it alone is closed.
        api_key: whether `X-API-Key` may carry a token.
    """

    rest: TokenFile | Tokens | None
    open: frozenset[tuple[str, str]] = frozenset()
    own: Mapping[tuple[str, str], TokenFile] = field(default_factory=dict)
    api_key: bool = False

    @classmethod
    def of_main(cls, access: Access, settings: Settings) -> Self:
        """The doors of the main application."""
        pages = [UI, *(f"{UI}/{name}" for name in read_assets())] if settings.ui == "open" else []
        return cls(
            rest=access.keys,
            open=PROBES | {(method, page) for page in pages for method in ("GET", "HEAD")},
            own={METRICS: access.metrics} if access.metrics else {},
            api_key=True,
        )

    def openers(self, method: str, path: str) -> list[Tokens]:
        """The tokens that open a path; none for one that is open."""
        where = (method, path)
        if where in self.open:
            return []
        files = [self.own.get(where), self.rest]
        return [file.tokens if isinstance(file, TokenFile) else file for file in files if file is not None]


class RequireToken:
    """Lets nothing through without a token but what its doors name, whatever the path: none is told there is."""

    def __init__(self, app: ASGIApp, doors: Doors, attempts: Attempts | None = None) -> None:
        self.app = app
        self.doors = doors
        self.attempts = attempts or Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with a right token, answer 401 to any other, 429 to the peer that sends many wrong ones."""
        openers = self.doors.openers(scope["method"], scope["path"]) if scope["type"] == "http" else []
        if not openers:
            await self.app(scope, receive, send)
            return
        given = _presented(scope, api_key=self.doors.api_key)
        labels = [tokens.label_of(given) for tokens in openers]
        label = next((label for label in labels if label is not None), None)
        if label is not None:  # however many wrong ones came from there: others may sit behind the same address
            if label:
                record_of(scope).facts["key"] = label
            await self.app(scope, receive, send)
            return
        await refused(self._refusal(scope, given), record_of(scope))(scope, receive, send)

    def _refusal(self, scope: Scope, given: bytes) -> Unauthorized | TooManyAttempts:
        if given and (wait_s := self.attempts.another(peer_of(scope))):
            return TooManyAttempts(
                "Too many wrong tokens came from this address; a right one is let in at any time.", math.ceil(wait_s)
            )
        header = "Authorization: Bearer, or X-API-Key," if self.doors.api_key else "Authorization: Bearer"
        whose = "an API key of this service" if self.doors.api_key else "a token of this service's administrators"
        return Unauthorized(f"Send the header {header} with {whose}.")


def _read(file: Path | None) -> TokenFile | None:
    return TokenFile(file) if file is not None else None


def peer_of(scope: Scope) -> str:
    """Who is at the other end of the socket: an IPv4 address, or the /64 that one IPv6 host has to itself."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, IPv6Address) and not address.ipv4_mapped:
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else host


def _presented(scope: Scope, *, api_key: bool) -> bytes:
    """The one token that a request carries; what is no token, or more than one, is none that opens."""
    names = (b"authorization", b"x-api-key") if api_key else (b"authorization",)
    given = [(name, value) for name, value in scope["headers"] if name in names]
    if not given:
        return b""
    name, value = given[0]
    if len(given) > 1:
        return b" "
    if name == b"authorization":
        return bytes(value[len(_SCHEME) :]).strip() if value.lower().startswith(_SCHEME) else b""
    return bytes(value).strip()
