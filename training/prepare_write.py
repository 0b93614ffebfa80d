"""The files of the prepare stage and the hash that names their content.

Knows the columns that later stages rely on. Knows nothing of how they came about.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from training.interactions import IntArray, Interactions
from training.split import SPLITS, Split

ROWS_A_GROUP = 1_000_000


def write_interactions(path: Path, interactions: Interactions, position: IntArray, split: Split) -> str:
    """Write ``interactions.parquet`` in groups of a million rows.

    Args:
        path: The file.
        interactions: In order.
        position: (n,) place within the user.
        split: (n,).

    Returns:
        Sha256 of user, item, time and split of all rows as CSV: the same for the same data, whoever wrote them.
    """
    digest = hashlib.sha256()
    texts = {
        "user_id": (pa.array(interactions.user_ids, pa.string()), interactions.user),
        "item_id": (pa.array(interactions.item_ids, pa.string()), interactions.item),
        "event": (pa.array(interactions.event_names, pa.string()), interactions.event),
        "split": (pa.array(SPLITS, pa.string()), split),
    }
    schema = _schema(interactions)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(interactions), ROWS_A_GROUP):
            rows = slice(start, start + ROWS_A_GROUP)
            columns: dict[str, pa.Array] = {
                name: _text(words, codes[rows]) for name, (words, codes) in texts.items() if codes is not None
            }
            columns["timestamp"] = pa.array(interactions.time[rows], pa.int64())
            columns["position"] = pa.array(position[rows], pa.int32())
            if interactions.rating is not None:
                columns["rating"] = pa.array(interactions.rating[rows], pa.float64(), from_pandas=True)
            table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
            writer.write_table(table)
            named = pl.DataFrame(table.select(["user_id", "item_id", "timestamp", "split"]))
            digest.update(named.write_csv(include_header=False).encode())
    return digest.hexdigest()


def write_items(path: Path, items: pl.DataFrame) -> str:
    """Write ``items.parquet``, plain Arrow strings throughout.

    Returns:
        Sha256 of all rows as JSON lines.
    """
    pq.write_table(plain_table(items), path, row_group_size=ROWS_A_GROUP)
    return hashlib.sha256(items.write_ndjson().encode()).hexdigest()


def plain_table(items: pl.DataFrame) -> pa.Table:
    """Items as Arrow, in the types that readers of a bundle are promised."""
    table = items.to_arrow()
    return table.cast(pa.schema([(field.name, _plain(field.type)) for field in table.schema]))


def _schema(interactions: Interactions) -> pa.Schema:
    fields = [("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())]
    if interactions.event is not None:
        fields.append(("event", pa.string()))
    if interactions.rating is not None:
        fields.append(("rating", pa.float64()))
    return pa.schema([*fields, ("position", pa.int32()), ("split", pa.string())])


def _text(words: pa.Array, codes: npt.NDArray[np.integer]) -> pa.Array:
    """The word of each code, null for -1."""
    return words.take(pa.array(codes, pa.int32(), mask=codes < 0))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Polars writes large and view types; readers of the bundle are promised string and list<string>."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.string())
    return kind if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) else pa.string()
