"""Semantic IDs that were published: an item keeps its own, and no other item ever gets it.

Also those of items that have left: who stored such an ID must not find another item behind it, and the model would
recommend the newcomer for what it learnt of the one that left. An item that comes back gets its ID back. Knows codes
and one small file. Shapes: P items, L levels.
"""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

RETIRED = "quantizer/retired.parquet"
"""Where a bundle keeps the IDs of items that have left: item_id, code_0 … code_{L-1}."""


@dataclass(frozen=True, slots=True, eq=False)
class PublishedIds:
    """Items and their semantic IDs.

    Attributes:
        item_ids: P distinct ids.
        codes: (P, L) int32, distinct rows.
    """

    item_ids: Sequence[str]
    codes: npt.NDArray[np.int32]

    def rows_of(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """(M,) where each of these items stands here, -1 for one that does not."""
        place = {item_id: row for row, item_id in enumerate(self.item_ids)}
        return np.array([place.get(item_id, -1) for item_id in item_ids], dtype=np.int64)

    def without(self, item_ids: Collection[str]) -> "PublishedIds":
        """Those of all other items."""
        gone = frozenset(item_ids)
        kept = [row for row, item_id in enumerate(self.item_ids) if item_id not in gone]
        return PublishedIds([self.item_ids[row] for row in kept], self.codes[kept])

    def and_those(self, others: "PublishedIds") -> "PublishedIds":
        """Both, these first."""
        return PublishedIds([*self.item_ids, *others.item_ids], np.concatenate([self.codes, others.codes]))

    def write(self, path: Path) -> None:
        """A file that `read_retired` reads."""
        columns = {"item_id": pa.array(self.item_ids, pa.string())}
        columns |= {f"code_{level}": pa.array(self.codes[:, level]) for level in range(self.codes.shape[1])}
        pq.write_table(pa.table(columns), path)


def read_retired(content: bytes | None, num_levels: int) -> PublishedIds:
    """The content of `RETIRED`; None is that of a bundle that no item has left."""
    if content is None:
        return PublishedIds((), np.empty((0, num_levels), dtype=np.int32))
    table = pq.read_table(io.BytesIO(content))
    codes = [table.column(f"code_{level}").to_numpy() for level in range(num_levels)]
    return PublishedIds(table.column("item_id").to_pylist(), np.stack(codes, axis=1).astype(np.int32))
