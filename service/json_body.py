"""Reading a request's body: bounded, declared, UTF-8, and JSON as RFC 8259 says, before anything looks at values.

The standard parser takes NaN, the last of two equal keys, UTF-16, and any depth until the stack ends; this one does
not. Knows nothing of what the values mean.
"""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.errors import BodyTooLarge, MalformedBody, UnsupportedMedia
from service.settings import Settings
from service.state import service_state

# Possessive, and content with a missing end quote: one pass whatever the bytes are, no backtracking to attack.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD]")

# Python refuses to read integers of more than 4,300 digits. No field holds more than 20, so a longer one is cut: it is
# still far out of every range, and the answer is a 422 that names the field.
_MAX_INT_CHARS = 40


class JsonRoute(APIRoute):
    """A route whose body is read and parsed here; the framework only validates the values."""

    @staticmethod
    def max_body_bytes(settings: Settings) -> int:
        """Longer bodies are refused."""
        return settings.max_body_bytes

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`; called once, when the route is made."""
        validate_and_answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            settings = service_state(request).settings
            check_media(request)
            body = await read_body(request, self.max_body_bytes(settings))
            value = parse_json(body, settings.max_json_depth)
            return await validate_and_answer(_ParsedRequest(request, body, value))

        return handle


class _ParsedRequest(Request):
    def __init__(self, request: Request, body: bytes, value: object) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body
        self._value = value

    async def json(self) -> Any:  # noqa: ANN401  (the framework's signature)
        return self._value


def check_media(request: Request) -> None:
    """Refuse a body that is compressed, or not declared as JSON in UTF-8.

    Raises:
        UnsupportedMedia: with the header to mend.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia("Send the body uncompressed, without Content-Encoding.")
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise UnsupportedMedia("Send JSON in UTF-8 with the header Content-Type: application/json.")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, read no further than `max_bytes`, however long it says it is, or does not say.

    Raises:
        BodyTooLarge: it is longer.
    """
    too_large = BodyTooLarge(f"The body is longer than {max_bytes} bytes.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 18 or int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def parse_json(body: bytes, max_depth: int) -> Any:  # noqa: ANN401  (JSON is anything)
    """The value of a JSON text.

    Args:
        body: the text in UTF-8, without a byte order mark.
        max_depth: how deep arrays and objects may lie in one another.

    Raises:
        MalformedBody: not UTF-8, not JSON, too deep, NaN or Infinity, a key twice, or half a surrogate pair.
    """
    if exceeds_depth(body, max_depth):
        raise MalformedBody(f"The JSON is nested deeper than {max_depth}.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody("The body is not UTF-8.") from error
    if text.startswith("\ufeff"):
        raise MalformedBody("The body starts with a byte order mark; send plain UTF-8.")
    try:
        value = json.loads(text, parse_int=_bounded_int, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise MalformedBody(f"The body is not JSON from character {error.pos} on.") from error
    if _SURROGATE_ESCAPE.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise MalformedBody("A string holds half of a surrogate pair.") from error
    return value


def exceeds_depth(body: bytes, max_depth: int) -> bool:
    """Whether arrays and objects lie deeper than `max_depth`, found without recursion and in linear time."""
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            return True
    return False


def _bounded_int(digits: str) -> int:
    return int(digits[:_MAX_INT_CHARS])


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody("NaN and Infinity are not JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise MalformedBody("An object has one key twice.")
    return value
