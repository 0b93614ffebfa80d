"""The items of a bundle, as catalog/items.parquet holds them."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.bundle import layout
from genrec.errors import BundleError, DataError, one_line
from genrec.item_tokens import ItemTokens
from genrec.semantic_id import Catalog, first_unordered


def read_catalog(content: bytes, tokens: ItemTokens) -> Catalog:
    """The content of catalog/items.parquet as a catalog, every code known to `tokens`.

    Raises:
        BundleError: a column is missing or of a wrong type, two items share a semantic ID, or the order is wrong.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"file {layout.ITEMS} cannot be read: {one_line(error)}") from error
    code_names = [f"code_{level}" for level in range(tokens.num_levels)]
    for name in ("item_id", "popularity", *code_names):
        if name not in table.column_names:
            raise BundleError(f"file {layout.ITEMS} has no column {name!r}.")
    extra = next(
        (name for name in table.column_names if re.fullmatch(r"code_\d+", name) and name not in code_names), None
    )
    if extra:
        raise BundleError(
            f"file {layout.ITEMS} has a column {extra!r}, but the manifest has {tokens.num_levels} levels."
        )
    if not _is_text(table.schema.field("item_id").type) or not pa.types.is_integer(
        table.schema.field("popularity").type
    ):
        raise BundleError(f"file {layout.ITEMS} must have item_id as strings and popularity as whole numbers.")
    try:
        columns = [table.column(name).to_numpy() for name in code_names]
        catalog = Catalog(
            item_ids=table.column("item_id").cast(pa.string()).combine_chunks(),
            codes=np.stack(columns, axis=1, dtype=np.int32, casting="safe"),
            popularity=table.column("popularity").to_numpy().astype(np.int64, casting="safe"),
            metadata=table.drop_columns(["item_id", "popularity", *code_names]).combine_chunks(),
        )
        paths = tokens.paths(catalog.codes)
    except (DataError, pa.ArrowException, TypeError, ValueError) as error:
        raise BundleError(f"file {layout.ITEMS}: {one_line(error)}") from error
    if first_unordered(paths) is not None:
        raise BundleError(f"file {layout.ITEMS} is not sorted by token path.")
    return catalog


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
