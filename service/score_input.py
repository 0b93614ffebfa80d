"""The rows to score: each a request to the recommender, or the sentence on why it is none.

A row is what `POST /recommend` would be sent, so the same wire type checks it. Knows no model and no output.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from genrec.errors import DataError, RequestError
from genrec.requests import Request
from service.schemas import RecommendRequest
from service.score_formats import Fields, RawRow, format_of, open_rows
from service.translation import to_request
from service.validation import refusal

REQUIRED = ("user_id", "history")
COLUMNS = (*REQUIRED, "k", "exclude", "exclude_history", "num_beams", "filter", "prove_exact")

_USER_ID = TypeAdapter(Annotated[str, Field(strict=True, min_length=1, max_length=512)])


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input: either `request` or `error` is there.

    Attributes:
        user_id: whose history it is; None where that could not be read.
        request: what the recommender is asked.
        error: why it cannot be asked.
    """

    user_id: str | None
    request: Request | None
    error: str | None


@dataclass(frozen=True)
class RowParser:
    """From fields to a request.

    Attributes:
        defaults: fields of a row that does not give them.
        validate: the bundle's own limits, `Recommender.validate`.
    """

    defaults: Mapping[str, object]
    validate: Callable[[Request], None]

    def __call__(self, raw: RawRow) -> Row:
        """The row; never raises for what is in it."""
        user_id = None
        try:
            fields = {name: value for name, value in raw().items() if value is not None}
            user_id = _user_id(fields.pop("user_id", None))
            return Row(user_id, self._request(fields), None)
        except RequestError as error:
            return Row(user_id, None, f"{error.pointer} {error}".strip())

    def _request(self, fields: Fields) -> Request:
        if unknown := [name for name in fields if name not in COLUMNS]:
            raise RequestError(f"There is no column {unknown[0][:64]!r}{_nearest(unknown[0])}")
        asked = {**self.defaults, **{name: _with_text_ids(value) for name, value in fields.items()}}
        try:
            sent = RecommendRequest.model_validate(asked)
        except ValidationError as error:
            raise refusal(error.errors(include_url=False), asked) from error
        request = to_request(sent)
        self.validate(request)
        return request


def check_columns(path: Path) -> None:
    """Before work begins: a file has the columns that rows need, and no other.

    Raises:
        DataError: no such file, not a format we read, a column that we do not know or miss.
    """
    with open_rows(path) as rows:
        columns = rows.columns
    for name in columns:
        if name not in COLUMNS:
            mend = "; a CSV file has commas between columns." if {";", "\t", "|"} & set(name) else _nearest(name)
            raise DataError(
                f"{path} has a column {name[:64]!r}, which is not read{mend} Read are {', '.join(COLUMNS)}."
            )
    if format_of(path) != "jsonl":  # there a row that lacks one is that row's own error
        for name in REQUIRED:
            if name not in columns:
                raise DataError(f"{path} has no column {name!r}; its columns: {', '.join(columns)}.")


def _user_id(value: object) -> str:
    if value is None:
        raise RequestError("user_id is missing.", "/user_id")
    try:
        return _USER_ID.validate_python(_as_id(value))
    except ValidationError as error:
        raise RequestError(f"{error.errors(include_url=False)[0]['msg']}.", "/user_id") from error


def _with_text_ids(value: object) -> object:
    """The integers in a list of ids, or in a filter's, as the text they are written as."""
    match value:
        case list():
            return [_as_id(entry) for entry in value]
        case {"include_ids": list(ids), **others}:
            return {**others, "include_ids": _with_text_ids(ids)}
    return value


def _as_id(value: object) -> object:
    """A number that is an id as the text it is written as; anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _nearest(name: str) -> str:
    """The end of a sentence on a name that is not known."""
    near = difflib.get_close_matches(name[:64], COLUMNS, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
