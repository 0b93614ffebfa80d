"""Item tokens are distinct, are spelled in one way, and turn codes into token paths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.item_tokens import ItemTokens, read_spelling, spell, spell_all

TOKENS = ItemTokens(((10, 11, 12), (7, 5), (20,)))


@given(st.integers(0, 25), st.integers(0, 999_999_999))
def test_a_spelled_token_is_read_back(level: int, code: int) -> None:
    assert read_spelling(spell(level, code)) == (level, code)


@given(st.text(max_size=8) | st.from_regex(r"<[a-z]_[0-9]{1,12}>"))
def test_whatever_can_be_read_is_spelled_just_so(token: str) -> None:
    try:
        level, code = read_spelling(token)
    except DataError:
        return
    assert spell(level, code) == token


@pytest.mark.parametrize(
    "token", ["<a_01>", "<A_1>", "<a_1> ", "<a_1>\n", "<ab_1>", "a_1", "<a_-1>", "<a_>", "<a_١>", "", "<a_1><b_1>"]
)
def test_anything_else_is_no_item_token(token: str) -> None:
    with pytest.raises(DataError, match="is not an item token"):
        read_spelling(token)


def test_all_tokens_are_spelled_level_by_level() -> None:
    assert spell_all((2, 1)) == ["<a_0>", "<a_1>", "<b_0>"]
    assert spell(0, 17) == "<a_17>"


def test_more_levels_than_letters_are_refused() -> None:
    assert len(spell_all((1,) * 26)) == 26
    with pytest.raises(DataError, match="27 levels are more than the 26"):
        spell_all((1,) * 27)


@pytest.mark.parametrize(
    ("token_ids", "sentence"),
    [
        ((), "every level needs at least one"),
        (((1,), ()), "every level needs at least one"),
        (((1, -2),), "item token id -2 is negative"),
        (((1, 2), (3, 2)), "token id 2 stands for two codes"),
        (((4, 4),), "token id 4 stands for two codes"),
    ],
)
def test_tokens_that_are_not_one_for_one_are_refused(token_ids: tuple[tuple[int, ...], ...], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        ItemTokens(token_ids)


def test_sizes_and_highest_id_follow_from_the_ids() -> None:
    assert (TOKENS.num_levels, TOKENS.codebook_sizes, TOKENS.highest_id) == (3, (3, 2, 1), 20)


def test_a_clash_with_other_ids_is_found() -> None:
    assert TOKENS.clash({1, 2, 3}) is None
    assert TOKENS.clash({99, 11, 5}) == 5


def test_codes_become_token_paths() -> None:
    paths = TOKENS.paths(np.array([[2, 0, 0], [0, 1, 0]], dtype=np.int32))
    assert paths.tolist() == [[12, 7, 20], [10, 5, 20]]
    assert paths.dtype == np.int32
    assert TOKENS.paths(np.zeros((0, 3), np.int32)).shape == (0, 3)


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        ([[0, 0]], "do not have the 3 levels"),
        ([[0, 0, 0], [1, 2, 0]], r"code 2 at level 1 \(row 1\) has no token: there are 2"),
        ([[0, -1, 0]], r"code -1 at level 1 \(row 0\) has no token"),
    ],
)
def test_a_code_without_a_token_is_refused(codes: list[list[int]], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        TOKENS.paths(np.array(codes, dtype=np.int32))
