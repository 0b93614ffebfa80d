"""From interactions to histories: what each user took, oldest first, as a file of rows to score.

Memory: ids are held once each, an interaction in about 40 bytes. Knows no model and no output directory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from genrec.errors import DataError, one_line

COLUMNS = ("user_id", "item_id", "timestamp")

_IDS = ("user_id", "item_id")
_USERS_AT_ONCE = 10_000  # written as one group of rows


def write_histories(interactions: Path, target: Path) -> None:
    """Write a Parquet file with a row for each user, `user_id` and `history`; the same bytes for the same interactions.

    Users come in the order in which the file first names them; interactions of one time stay in the file's order.

    Args:
        interactions: a .parquet or .csv file with the `COLUMNS`, others are not read. Ids are text or whole numbers,
            times are numbers, dates or times, or in CSV text as in ISO 8601; only their order counts.
        target: where to.

    Raises:
        DataError: the file is not that, or a row of it lacks something.
        OSError: `target` cannot be written.
    """
    with _readable(interactions):
        batches = [_encoded(interactions, batch) for batch in _batches(interactions)]
        if not any(batch.num_rows for batch in batches):
            raise DataError(f"{interactions} has no interactions; give a file with rows.")
        table = pa.Table.from_batches(batches).combine_chunks()
        del batches
        users, items, times = (table.column(name).chunk(0) for name in COLUMNS)
        del table
    user_codes = users.indices.to_numpy()
    order = np.lexsort((_comparable(times), user_codes))  # stable
    ends = np.cumsum(np.bincount(user_codes, minlength=len(users.dictionary)))
    _write(target, users.dictionary, ends, items.dictionary, items.indices.take(pa.array(order)))


def _batches(interactions: Path) -> Iterator[pa.RecordBatch]:
    match interactions.suffix.lower():
        case ".parquet":
            with pq.ParquetFile(interactions) as file:
                _check_columns(interactions, file.schema_arrow.names)
                yield from file.iter_batches(columns=list(COLUMNS))
        case ".csv":
            with interactions.open("rb") as stream:
                header = stream.readline(1 << 16).decode("utf-8-sig", errors="replace")
            _check_columns(interactions, [name.strip().strip('"') for name in header.split(",")])
            ids = dict.fromkeys(_IDS, pa.string())
            options = pa_csv.ConvertOptions(include_columns=list(COLUMNS), column_types=ids)
            yield from pa_csv.open_csv(interactions, convert_options=options)
        case _:
            raise DataError(f"{interactions} must end in .parquet or .csv, so that its format is known.")


def _check_columns(interactions: Path, names: list[str]) -> None:
    for name in COLUMNS:
        if name not in names:
            raise DataError(f"{interactions} has no column {name!r}; its columns: {', '.join(names)}.")


def _encoded(interactions: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose ids are numbers into a dictionary, in the order in which they first come."""
    for name in COLUMNS:
        column = batch.column(name)
        if column.null_count or (pa.types.is_string(column.type) and not pc.all(pc.not_equal(column, "")).as_py()):
            raise DataError(f"{interactions} has rows without {name!r}; leave them out.")
    ids = [_id_text(interactions, name, batch.column(name)).dictionary_encode() for name in _IDS]
    times = batch.column("timestamp")
    if not (pa.types.is_temporal(times.type) or pa.types.is_integer(times.type) or pa.types.is_floating(times.type)):
        raise DataError(
            f"{interactions} column 'timestamp' holds {times.type}; write numbers, or times as in 2024-01-02 20:15:00."
        )
    return pa.RecordBatch.from_arrays([*ids, times], names=list(COLUMNS))


def _id_text(interactions: Path, name: str, ids: pa.Array) -> pa.Array:
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type) or pa.types.is_integer(ids.type)):
        raise DataError(f"{interactions} column {name!r} holds {ids.type}; an id is text or a whole number.")
    return ids.cast(pa.string())


def _comparable(times: pa.Array) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    kind = times.type
    if pa.types.is_temporal(kind):
        times = times.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    numbers: npt.NDArray[np.int64] | npt.NDArray[np.float64] = times.to_numpy()
    return numbers


def _write(target: Path, users: pa.Array, ends: npt.NDArray[np.int64], items: pa.Array, codes: pa.Array) -> None:
    schema = pa.schema([("user_id", pa.string()), ("history", pa.list_(pa.string()))])
    with pq.ParquetWriter(target, schema) as writer:
        for first in range(0, len(users), _USERS_AT_ONCE):
            of_these = ends[first : first + _USERS_AT_ONCE]
            begin = int(ends[first - 1]) if first else 0
            offsets = pa.array(np.concatenate(([0], of_these - begin)), pa.int32())
            taken = items.take(codes.slice(begin, int(of_these[-1]) - begin))
            histories = pa.ListArray.from_arrays(offsets, taken)
            writer.write_batch(
                pa.RecordBatch.from_arrays([users.slice(first, len(of_these)), histories], schema=schema)
            )


@contextmanager
def _readable(interactions: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{interactions} cannot be read: {one_line(error)}") from error
