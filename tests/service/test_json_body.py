import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import MalformedBody
from service.json_body import exceeds_depth, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_json_value_is_read_as_it_was_written(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), 200) == value


@given(VALUES, st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_the_depth_is_that_of_the_value_whatever_its_strings_hold(value, limit):
    wrapped = [value, '[[[[[["\\', "}{]["]
    assert exceeds_depth(json.dumps(wrapped).encode(), limit) == (depth(wrapped) > limit)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"k": 1,}', "not JSON"),
        (b"{'k': 1}", "not JSON"),
        (b'{"k": 1} x', "not JSON"),
        (b'{"k": 01}', "not JSON"),
        (b'{"k": +1}', "not JSON"),
        (b'"\x00"', "not JSON"),
        (b'{"k": NaN}', "NaN"),
        (b'{"k": -Infinity}', "NaN"),
        (b'{"k": 1, "k": 2}', "twice"),
        (b'{"a": {"k": 1, "\\u006b": 2}}', "twice"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\uDFFF": 1}', "surrogate"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        ('"é"'.encode("latin-1"), "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-8"),
        ("{}".encode("utf-16-le"), "not JSON"),
    ],
)
def test_what_is_not_json_is_refused_with_its_reason(body, why):
    with pytest.raises(MalformedBody, match=why):
        parse_json(body, 32)


def test_a_pair_of_surrogates_is_one_character():
    assert parse_json(b'"\\ud83c\\udfac"', 32) == "🎬"


@pytest.mark.parametrize("digits", [30, 5_000, 200_000])
def test_an_integer_of_any_length_is_read_as_a_number_beyond_every_range(digits):
    assert parse_json(b"9" * digits, 32) > 10**18
    assert parse_json(b"-" + b"9" * digits, 32) < -(10**18)


@pytest.mark.parametrize("levels", [33, 1_000, 100_000, 1_000_000])
@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"a":'])
def test_depth_is_refused_before_anything_recurses(unit, levels):
    begin = time.thread_time()
    with pytest.raises(MalformedBody, match="deeper than 32"):
        parse_json(unit * levels, 32)
    assert time.thread_time() - begin < 5  # quadratic would take minutes; other threads and tests do not count


def test_exactly_the_allowed_depth_is_read():
    assert parse_json(b"[" * 32 + b"]" * 32, 32)
    with pytest.raises(MalformedBody):
        parse_json(b"[" * 33 + b"]" * 33, 32)


@pytest.mark.parametrize("unit", [b'"', b'\\"', b'"\\', b'"\\"', b'["', b'"[', b"[]", b'\\["', b'"\\\\'])
def test_finding_the_depth_takes_linear_time_whatever_the_bytes(unit):
    body = b"[]" * 40 + unit * (262_144 // len(unit))
    begin = time.thread_time()
    exceeds_depth(body, 39)
    assert time.thread_time() - begin < 5  # quadratic would take minutes
