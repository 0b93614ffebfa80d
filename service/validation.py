"""From what pydantic says of a wrong value to a sentence and a JSON pointer, without a byte of what was sent.

The framework's own handler repeats the input: one NaN or half a surrogate pair in it then breaks the 422 into a 500.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from genrec.errors import RequestError
from service.schemas import BatchRequest, HistoryItem, RecommendRequest, RequestFilter, ScoreRequest

_MODELS = (RecommendRequest, BatchRequest, ScoreRequest, HistoryItem, RequestFilter)
KNOWN_FIELDS = sorted({name for model in _MODELS for name in model.model_fields})


def refusal(errors: Sequence[Mapping[str, Any]], body: object) -> RequestError:
    """The first of pydantic's errors as ours.

    Args:
        errors: at least one, as pydantic lists them, each `loc` relative to `body` or led by where FastAPI found it
            ("body", "query", "path").
        body: the parsed body, to tell fields from the names of union members in a `loc`.
    """
    error = errors[0]
    place, *loc = error["loc"] or ("body",)
    if place in ("query", "path"):
        return RequestError(f"{place} parameter {loc[0] if loc else ''}: {error['msg']}.")
    if place != "body":
        loc = [place, *loc]
    more = f" ({len(errors) - 1} more like this.)" if len(errors) > 1 else ""
    if error["type"] == "extra_forbidden":
        return RequestError(f"There is no such field{_nearest(str(loc[-1]))}.{more}", pointer(loc[:-1], body))
    where = pointer(loc, body)
    if error["type"] == "missing" and loc:
        where += f"/{loc[-1]}"
    return RequestError(f"{error['msg']}.{more}", where)


def pointer(loc: Sequence[int | str], body: object) -> str:
    """The JSON pointer (RFC 6901) to the deepest part of `body` that `loc` leads to."""
    found = ""
    for part in loc:
        inside_list = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if inside_list or (isinstance(body, dict) and part in body):
            body = body[part]  # type: ignore[index]
            found += f"/{part}"
    return found


def _nearest(name: str) -> str:
    names = difflib.get_close_matches(name[:64], KNOWN_FIELDS, n=1)
    return f"; did you mean {names[0]}" if names else ""
