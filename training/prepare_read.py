"""From scanned tables to checked interactions and items. Every refusal names the file and the row.

Knows columns and types. Knows nothing of filters and splits.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from genrec.errors import DataError
from training.columns import Parsed, choose_time_unit, own_type, parse_id, parse_metadata, parse_number, parse_time
from training.interactions import Interactions
from training.recipe_data import RESERVED_COLUMNS, InteractionsSource, ItemsSource, MetadataColumn
from training.sources import ROW, Source, reading

PROBLEM = "__problem"


def read_interactions(source: Source, columns: InteractionsSource, scratch: Path) -> Interactions:
    """Read, check and number all interactions, in the order of the files.

    The text passes through a Parquet file in pieces; only numbers stay in memory.

    Args:
        source: The table.
        columns: What its columns are called.
        scratch: A directory for that file, which is removed again.

    Raises:
        DataError: A column is absent or a row cannot be read, or there is no row.
    """
    named = {"user": columns.user, "item": columns.item, "time": columns.time}
    optional = {"rating": columns.rating, "event": columns.event}
    named |= {key: column for key, column in optional.items() if column is not None}
    source.require(named, "prepare.interactions")
    kinds = source.schema
    with reading(source.path):
        unit = choose_time_unit(source.frame, columns.time, columns.time_unit)
    parsed = {
        "user": parse_id(columns.user, kinds[columns.user]),
        "item": parse_id(columns.item, kinds[columns.item]),
        "time": parse_time(columns.time, kinds[columns.time], unit),
    }
    if columns.rating is not None:
        parsed["rating"] = parse_number(columns.rating, kinds[columns.rating])
    if columns.event is not None:
        parsed["event"] = parse_metadata(columns.event, MetadataColumn(), kinds[columns.event])
    file = scratch / "interactions.scratch"
    with reading(source.path):
        _typed(source.frame, parsed).sink_parquet(file)
    table = pl.scan_parquet(file)
    _refuse_problems(table, source)
    interactions = _numbered(table)
    file.unlink()
    if not len(interactions):
        raise DataError(f"{source.path} holds no interactions; it needs at least one row")
    return interactions


def read_items(source: Source, columns: ItemsSource) -> pl.DataFrame:
    """Read and check all items: ``item_id`` and the metadata columns, sorted by id.

    Raises:
        DataError: A column is absent, a row cannot be read, or an id occurs twice.
    """
    source.require({"item": columns.item}, "prepare.items")
    metadata = columns.metadata if columns.metadata is not None else _all_columns(source, columns.item)
    wanted = {f"metadata.{name}": entry.column or name for name, entry in metadata.items()}
    source.require(wanted, "prepare.items")
    kinds = source.schema
    parsed = {"item_id": parse_id(columns.item, kinds[columns.item])}
    parsed |= {name: parse_metadata(name, entry, kinds[entry.column or name]) for name, entry in metadata.items()}
    with reading(source.path):
        table = _typed(source.frame, parsed).collect(engine="streaming")
    _refuse_problems(table.lazy(), source)
    twice = table.filter(pl.col("item_id").is_duplicated()).get_column("item_id")
    if len(twice):
        raise DataError(
            f"{source.path}: item {twice[0]!r} has {(twice == twice[0]).sum()} rows, and {twice.n_unique()} items have "
            "more than one; keep one row an item"
        )
    return table.select("item_id", *metadata).sort("item_id")


def _all_columns(source: Source, item: str) -> dict[str, MetadataColumn]:
    """Metadata when the recipe names none: every column but the id, as the file types it."""
    metadata: dict[str, MetadataColumn] = {}
    for name, kind in source.schema.items():
        if name == item or name not in source.columns:
            continue
        own = own_type(kind)
        if own is None or RESERVED_COLUMNS.fullmatch(name):
            reason = f"it holds {kind}" if own is None else "the catalog uses that name itself"
            raise DataError(
                f"{source.path}: column {name!r} cannot be metadata, {reason}; "
                "list the columns you want in [prepare.items.metadata]"
            )
        metadata[name] = own
    return metadata


def _typed(frame: pl.LazyFrame, parsed: Mapping[str, Parsed]) -> pl.LazyFrame:
    problem = pl.coalesce(*(column.problem for column in parsed.values()))
    values = (column.value.alias(name) for name, column in parsed.items())
    return frame.select(ROW, *values, problem.alias(PROBLEM))


def _refuse_problems(table: pl.LazyFrame, source: Source) -> None:
    broken = table.filter(pl.col(PROBLEM).is_not_null())
    count = broken.select(pl.len()).collect(engine="streaming").item()
    if count:
        row, problem = broken.select(ROW, PROBLEM).sort(ROW).head(1).collect(engine="streaming").row(0)
        more = f"; {count:,} rows are like that" if count > 1 else ""
        raise DataError(f"{source.place(row)}: {problem[:200]!r}{more}. Mend or remove them")


def _numbered(table: pl.LazyFrame) -> Interactions:
    """Replace ids by their numbers in sorted order."""
    columns = table.collect_schema().names()
    ids = {name: _sorted_unique(table, name) for name in ("user", "item", "event") if name in columns}
    numbered = table
    for name, values in ids.items():
        numbers = values.rename({name: "text"}).with_row_index(f"{name}_number").lazy()
        numbered = numbered.join(numbers, left_on=name, right_on="text", how="left")
    rest = [name for name in ("time", "rating") if name in columns]
    data = numbered.select(*rest, *(pl.col(f"{name}_number").cast(pl.Int32) for name in ids)).collect(
        engine="streaming"
    )
    return Interactions(
        user_ids=ids["user"].get_column("user").to_list(),
        item_ids=ids["item"].get_column("item").to_list(),
        user=data.get_column("user_number").to_numpy(),
        item=data.get_column("item_number").to_numpy(),
        time=data.get_column("time").to_numpy(),
        rating=data.get_column("rating").fill_null(np.nan).to_numpy() if "rating" in columns else None,
        event=data.get_column("event_number").fill_null(-1).to_numpy() if "event" in columns else None,
        event_names=tuple(ids["event"].get_column("event").to_list()) if "event" in columns else (),
    )


def _sorted_unique(table: pl.LazyFrame, name: str) -> pl.DataFrame:
    return table.select(pl.col(name).drop_nulls().unique()).collect(engine="streaming").sort(name)
