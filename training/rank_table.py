"""Where the target of every case stands, for every method: what all numbers of an evaluation are computed from.

Kept beside the metrics, so that runs can be pooled and paired later. Knows cases and ranks, no metric and no model.
Shapes: C cases, of one split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.errors import DataError, one_line
from training.metrics import UNRANKED, IntArray, Ranks
from training.sequences import EvaluationCase, Sequences

FILE = "ranks.parquet"
MODEL = "model"
SPLITS = ("validation", "test")
_BETTER, _TIED = "better: ", "tied: "


@dataclass(frozen=True, eq=False)
class RankTable:
    """Cases and ranks.

    Attributes:
        users: (C,) user ids.
        history_lengths: (C,) items before the target. With the user it names the case.
        target_counts: (C,) how often the target occurs in training.
        ranks: Method -> C ranks.
    """

    users: Sequence[str]
    history_lengths: IntArray
    target_counts: IntArray
    ranks: Mapping[str, Ranks]

    @classmethod
    def of(cls, sequences: Sequences, cases: Sequence[EvaluationCase], ranks: Mapping[str, Ranks]) -> Self:
        """The table of these cases, whose items are rows of the sequences."""
        targets = np.array([case.target for case in cases], dtype=np.int64)
        return cls(
            users=[sequences.user_ids[case.user] for case in cases],
            history_lengths=np.array([len(case.history) for case in cases], dtype=np.int64),
            target_counts=sequences.training_counts()[targets],
            ranks=ranks,
        )

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def user_numbers(self) -> IntArray:
        """(C,) whose case each is, as a number."""
        number: dict[str, int] = {}
        return np.array([number.setdefault(user, len(number)) for user in self.users], dtype=np.int64)

    def only(self, chosen: npt.NDArray[np.bool_] | IntArray) -> "RankTable":
        """The cases at these places."""
        places = np.arange(len(self))[chosen]
        return RankTable(
            users=[self.users[place] for place in places.tolist()],
            history_lengths=self.history_lengths[places],
            target_counts=self.target_counts[places],
            ranks={name: Ranks(ranks.better[places], ranks.tied[places]) for name, ranks in self.ranks.items()},
        )

    def with_ranks(self, ranks: Mapping[str, Ranks]) -> "RankTable":
        """Further methods on the same cases, before those that are here."""
        return replace(self, ranks={**ranks, **self.ranks})


def write_ranks(directory: Path, tables: Mapping[str, RankTable]) -> None:
    """Write ``ranks.parquet``, a row a case; a rank is null where the method of its column does not list the target.

    Args:
        directory: Of the result.
        tables: Split -> its cases; all with the same methods, or some without.
    """
    most_methods_first = sorted(tables.items(), key=lambda pair: -len(pair[1].ranks))  # theirs is the order of columns
    parts = [_to_arrow(split, table) for split, table in most_methods_first]
    pq.write_table(pa.concat_tables(parts, promote_options="default"), directory / FILE)


def read_ranks(directory: Path) -> dict[str, RankTable]:
    """Read what `write_ranks` wrote: split -> its cases.

    Raises:
        DataError: There is no such file.
    """
    try:
        table = pq.read_table(directory / FILE)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{directory} holds no ranks of an evaluation: {one_line(error)}") from error
    splits = np.array(table["split"].to_pylist(), dtype=object)
    return {split: _from_arrow(table.filter(pa.array(splits == split))) for split in SPLITS if (splits == split).any()}


def _to_arrow(split: str, table: RankTable) -> pa.Table:
    columns = {
        "split": pa.array([split] * len(table), pa.string()),
        "user_id": pa.array(table.users, pa.string()),
        "history_length": pa.array(table.history_lengths, pa.int64()),
        "target_count": pa.array(table.target_counts, pa.int64()),
    }
    for method, ranks in table.ranks.items():
        columns[_BETTER + method] = pa.array(ranks.better, pa.int64(), mask=ranks.better >= UNRANKED)
        columns[_TIED + method] = pa.array(ranks.tied, pa.int64())
    return pa.table(columns)


def _from_arrow(table: pa.Table) -> RankTable:
    methods = [name.removeprefix(_BETTER) for name in table.column_names if name.startswith(_BETTER)]
    return RankTable(
        users=table["user_id"].to_pylist(),
        history_lengths=table["history_length"].to_numpy(),
        target_counts=table["target_count"].to_numpy(),
        ranks={
            method: Ranks(table[_BETTER + method].fill_null(UNRANKED).to_numpy(), table[_TIED + method].to_numpy())
            for method in methods
            if table[_TIED + method].null_count == 0  # a method that this split has not
        },
    )
