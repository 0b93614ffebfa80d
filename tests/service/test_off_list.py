import hashlib
import json
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.off_list import OffList

IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def sealed(rest: bytes) -> bytes:
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def head(**changes: object) -> bytes:
    return json.dumps({"format_version": 1, "catalog_version": 7, "items": 2} | changes).encode()


@given(st.integers(0, 2**62), st.lists(IDS, unique=True), st.lists(IDS, unique=True))
def test_what_is_written_is_read(version, some, more):
    content = OffList.of(version, pa.array(some, pa.string()), more).to_bytes()
    read = OffList.from_bytes(content)
    assert (read.version, read.item_ids.to_pylist()) == (version, [*some, *more])
    assert read.to_bytes() == content


@pytest.mark.parametrize("strange", ["\u2028", "\x85", " ", "é🎬", "films/alien?", '"', "{", "a" * 512])
def test_an_id_may_hold_what_other_formats_break_on(strange):
    assert OffList.from_bytes(OffList.of(1, ["a", strange, "b"]).to_bytes()).item_ids.to_pylist() == ["a", strange, "b"]


WHOLE = OffList.of(7, ["one", "two"]).to_bytes()


@pytest.mark.parametrize("place", range(len(WHOLE)))
def test_a_flipped_bit_or_a_cut_anywhere_is_found(place):
    for damaged in (
        WHOLE[:place] + bytes([WHOLE[place] ^ 1]) + WHOLE[place + 1 :],
        WHOLE[:place],
        WHOLE + WHOLE[place:],
    ):
        with pytest.raises(ValueError):
            OffList.from_bytes(damaged)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "first line"),
        (b"\0" * 100, "first line"),
        (sealed(b""), "Expecting value"),
        (sealed(b"[]\n"), None),
        (sealed(b"{}\n"), "format_version"),
        (sealed(head(format_version=2) + b"\na\nb\n"), "format version 2, this code reads 1"),
        (sealed(head(items=3) + b"\na\nb\n"), "2 items instead of 3"),
        (sealed(head() + b"\na\nb"), "1 items instead of 2"),
        (sealed(head() + b"\n\xff\nb\n"), "utf-8"),
        (sealed(head(catalog_version="x") + b"\na\nb\n"), "invalid literal"),
    ],
)
def test_what_is_no_list_is_refused_with_what_is_wrong(content, said):
    with pytest.raises((ValueError, KeyError, TypeError), match=said):
        OffList.from_bytes(content)


def test_a_million_items_are_written_and_read_quickly():
    item_ids = pa.array([f"item-{number:08d}" for number in range(1_000_000)])
    begin = time.perf_counter()
    read = OffList.from_bytes(OffList.of(1, item_ids).to_bytes())
    assert time.perf_counter() - begin < 2.0  # measured: 0.2
    assert len(read.item_ids) == 1_000_000
