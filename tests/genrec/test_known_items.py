import numpy as np
import pyarrow as pa
import pytest

from genrec.known_items import KnownItems
from genrec.semantic_id import Catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    names = ["a", "b", "c"]
    return Catalog(pa.array(names), np.arange(3, dtype=np.int32)[:, None], np.zeros(3, dtype=np.int64), pa.table({}))


def test_ids_are_told_apart_in_order_with_repeats(catalog: Catalog) -> None:
    known = KnownItems.of(["c", "x", "a", "", "c", "x", "\ud800", "a\0"], catalog)
    assert known == KnownItems(("c", "a", "c"), (2, 0, 2), ("x", "", "x", "\ud800", "a\0"))


def test_nothing_is_made_of_nothing(catalog: Catalog) -> None:
    assert KnownItems.of([], catalog) == KnownItems((), (), ())
