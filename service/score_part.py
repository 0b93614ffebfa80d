"""A part of the output: scored rows as the bytes of a Parquet or JSONL file, the same bytes for the same rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from genrec.answers import Answer

FORMATS = ("parquet", "jsonl")

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        (
            "items",
            pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float64()), ("probability", pa.float64())])),
        ),
        ("exact", pa.bool_()),
        ("unknown_items", pa.list_(pa.string())),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row of the output: an answer, or an error and nothing else."""

    user_id: str | None
    items: list[dict[str, Any]] | None
    exact: bool | None
    unknown_items: list[str] | None
    error: str | None

    @classmethod
    def of(cls, user_id: str | None, answer: Answer) -> Self:
        """A row that was answered."""
        items = [
            {"item_id": item.item_id, "score": item.score, "probability": item.probability} for item in answer.items
        ]
        return cls(user_id, items, answer.exact, list(answer.unknown_items), None)

    @classmethod
    def failed(cls, user_id: str | None, error: str) -> Self:
        """A row that could not be answered."""
        return cls(user_id, None, None, None, error)

    @property
    def fields(self) -> dict[str, Any]:
        """Column → value."""
        return {name: getattr(self, name) for name in SCHEMA.names}


def encode(rows: Sequence[ScoredRow], file_format: str) -> bytes:
    """The content of a part, parquet or jsonl."""
    if file_format == "jsonl":
        lines = (json.dumps(row.fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row.fields for row in rows], schema=SCHEMA), sink)
    return bytes(sink.getvalue())
