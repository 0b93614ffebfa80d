"""Which bundle is current, as a file: what is written is read back, and nothing else is taken for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle_record import BundleRecord

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(NAMES, NAMES, st.none() | NAMES)
def test_what_is_written_is_read_back(configured: str, current: str, previous: str | None) -> None:
    record = BundleRecord(configured, current, previous)
    assert BundleRecord.from_bytes(record.to_bytes()) == record


def test_a_service_that_was_told_nothing_serves_what_its_settings_name() -> None:
    assert BundleRecord.of("a") == BundleRecord("a", "a", None)


def test_a_rollback_goes_back_and_forth_and_a_reload_of_the_same_forgets_nothing() -> None:
    reloaded = BundleRecord.of("a").moved_to("b")
    assert reloaded == BundleRecord("a", "b", "a")
    assert reloaded.moved_to("b") == reloaded
    assert reloaded.moved_to("a") == BundleRecord("a", "a", "b")
    assert reloaded.moved_to("c") == BundleRecord("a", "c", "b")


RIGHT = {"format_version": 1, "configured": "a", "current": "b", "previous": "a"}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", b"null", b"7",
        *(
            json.dumps(changed).encode()
            for changed in (
                {**RIGHT, "format_version": 2},
                {**RIGHT, "current": ""},
                {**RIGHT, "current": None},
                {**RIGHT, "configured": 7},
                {**RIGHT, "previous": ["a"]},
                {**RIGHT, "more": 1},
                {name: value for name, value in RIGHT.items() if name != "current"},
                {name: value for name, value in RIGHT.items() if name != "format_version"},
            )
        ),
    ],
)  # fmt: skip
def test_a_damaged_file_is_an_error_that_its_reader_expects(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        BundleRecord.from_bytes(content)
