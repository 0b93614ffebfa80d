"""The file of a bundle's items: what is of a wrong type is refused and not made to fit."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.bundle import layout
from genrec.bundle.catalog import read_catalog
from genrec.bundle.manifest import read_sealed_manifest
from genrec.errors import BundleError


def with_column(bundle: Path, name: str, kind: pa.DataType, values: list[object] | None = None) -> bytes:
    """The file's bytes with a column as another type."""
    table = pq.read_table(bundle / layout.ITEMS)
    place = table.column_names.index(name)
    column = pa.array(values if values is not None else range(len(table)), type=kind)
    stream = io.BytesIO()
    pq.write_table(table.set_column(place, name, column), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"), [("item_id", pa.int64()), ("popularity", pa.float64()), ("popularity", pa.bool_())]
)
def test_a_column_of_another_type_is_refused(causal_bundle_path: Path, name: str, kind: pa.DataType) -> None:
    tokens = read_sealed_manifest(causal_bundle_path).item_tokens
    values = [True] * num_rows(causal_bundle_path) if kind == pa.bool_() else None
    with pytest.raises(BundleError, match=r"must have item_id as strings and popularity as whole numbers"):
        read_catalog(with_column(causal_bundle_path, name, kind, values), tokens)


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint16()])
def test_popularity_may_be_any_whole_numbers(causal_bundle_path: Path, kind: pa.DataType) -> None:
    tokens = read_sealed_manifest(causal_bundle_path).item_tokens
    popularity = read_catalog(with_column(causal_bundle_path, "popularity", kind), tokens).popularity
    assert popularity.tolist() == list(range(num_rows(causal_bundle_path)))


def num_rows(bundle: Path) -> int:
    return pq.read_metadata(bundle / layout.ITEMS).num_rows
