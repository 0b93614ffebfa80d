"""Words of titles are found by their beginnings, inside only where nothing begins so; a plain loop says the same."""

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import title_index
from service.title_index import MAX_LETTERS, MAX_WORDS, TitleIndex, folded_words

WORDS = ["star", "Wars", "STARSHIP", "the", "a", "Amélie", "amelie", "Spider-Man", "(1977)", "1977", "東京物語", "ß"]
TEXT = pa.string()
QUERIES = [*WORDS, "sta", "st", "w", "ars", "man", "ame", "197", "77", "物語", "zz", "é", "-", "..", "\0", "🎬"]


def plain_words(text: str) -> list[str]:
    """Of a text, without Arrow: Unicode's own categories."""
    folded = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text)).lower()
    spaced = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in folded)
    return spaced.split()


def found_by_loop(titles: list[str | None], query: str) -> list[int]:
    of_titles = [plain_words(title or "") for title in titles]
    asked, all_words = plain_words(query), {word for words in of_titles for word in words}

    def matches(word: str, words: list[str]) -> bool:
        if any(other.startswith(word) for other in all_words):
            return any(other.startswith(word) for other in words)
        return any(word in other for other in words)

    return [row for row, words in enumerate(of_titles) if asked and all(matches(word, words) for word in asked)]


def index_of(titles: list[str | None], kind: pa.DataType = TEXT) -> TitleIndex:
    half = len(titles) // 2
    return TitleIndex(pa.chunked_array([titles[:half], titles[half:]], kind), np.arange(len(titles), dtype=np.int32))


@given(
    st.lists(st.none() | st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), min_size=1, max_size=20),
    st.lists(st.sampled_from(QUERIES), max_size=3).map(" ".join),
    st.sampled_from([pa.string(), pa.large_string()]),
)
@settings(max_examples=200, deadline=None)
def test_what_is_found_is_what_a_plain_loop_finds(titles, query, kind):
    assert index_of(titles, kind).matches(folded_words(query, 8)).tolist() == found_by_loop(titles, query)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=12), st.text(max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_text_at_all_can_be_a_title_and_a_query(titles, query):
    index = index_of(titles)
    for title in titles:
        words = folded_words(title, 8)
        assert not words or set(index.matches(words).tolist()) >= {titles.index(title)}
    index.matches(folded_words(query, 8))


def test_titles_are_called_by_their_numbers_which_come_in_order():
    titles = pa.chunked_array([["a b", "b", "c", "b a"]])
    assert TitleIndex(titles, np.array([3, 0, 1, 2], dtype=np.int32)).matches(["b"]).tolist() == [0, 2, 3]


def test_parts_of_the_build_make_no_difference(monkeypatch):
    titles = [f"{word} {number}" for number, word in enumerate(WORDS * 3)]
    whole = index_of(titles)
    monkeypatch.setattr(title_index, "_TITLES_AT_ONCE", 5)
    parts = index_of(titles)
    for query in QUERIES:
        words = folded_words(query, 8)
        assert parts.matches(words).tolist() == whole.matches(words).tolist()


@pytest.mark.parametrize("query", ["", " ", ".*", "- --", "\0"])
def test_a_query_without_words_finds_nothing(query):
    assert index_of(["a", "b"]).matches(folded_words(query, 8)).tolist() == []


def test_only_so_many_words_of_a_query_count_each_once():
    assert folded_words("b a B á c d", 3) == ["b", "a", "c"]


def test_a_title_as_long_as_a_book_takes_no_more_than_its_first_words():
    short, long_ = index_of(["x"]), index_of(["x " * 3 + " ".join(f"w{number}" for number in range(10_000))])
    assert long_.matches(["w28"]).tolist() == [0]
    assert long_.matches(["w29"]).tolist() == []
    assert long_.num_bytes < short.num_bytes + MAX_WORDS * 32
    endless = "y" * 10 * MAX_LETTERS
    assert index_of([endless]).matches(folded_words(endless, 8)).tolist() == [0]
    assert index_of([endless]).num_bytes < 3 * MAX_LETTERS


def test_words_are_searched_inside_across_groups(monkeypatch):
    monkeypatch.setattr(title_index, "_WORDS_IN_A_GROUP", 3)
    titles = ["xab", "xabc", "yab", "zzz", "w", "wcab", "aaa", "bbb"]
    index = index_of(titles)
    for part in ("ab", "cab", "zz", "b", "q"):
        assert index.matches([part]).tolist() == found_by_loop(titles, part)


def test_no_titles_and_no_words_are_an_index_too():
    assert index_of([None, "", "…"]).matches(["a"]).tolist() == []
