"""An inverted index over the words of titles: which titles have words that begin, or hold, what was typed.

Flat arrays, built in one vectorised pass: the sorted vocabulary, and for each word the titles that have it. A prefix is
a range of the vocabulary, and so one slice of the titles; a query takes a pass over N flags for each of its words.

Shapes: N titles, V distinct words, P pairs of a title and a word of it.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MAX_WORDS = 32
"""Words of a title that can be found: bounds the memory where long descriptions stand for titles."""
MAX_LETTERS = 64
"""Letters of a word that count."""

_BETWEEN_WORDS = r"[^\p{L}\p{M}\p{N}]+"
_ACCENTS = r"[\x{300}-\x{36f}]+"  # of Latin, Greek and Cyrillic; what other scripts put on letters are no accents
_TITLES_AT_ONCE = 1 << 18  # bounds the memory of the build: of so many titles the words exist as text in several copies
_WORDS_IN_A_GROUP = 1 << 10  # searched inside together: five times as fast as a call for each word
_AFTER = "\U0010ffff"  # in no word: sorts behind every one that begins with what stands before it


class TitleIndex:
    """The words of N titles."""

    def __init__(self, titles: pa.ChunkedArray, numbers: npt.NDArray[np.int32]) -> None:
        """Build: seconds for millions of titles, most of them in Arrow, which lets other threads run.

        Args:
            titles: N strings or nulls.
            numbers: ``(N,)`` what each is called in `matches`: a permutation of 0 … N - 1.
        """
        words, places = [], []
        for start in range(0, len(titles), _TITLES_AT_ONCE):
            part = titles.slice(start, _TITLES_AT_ONCE).combine_chunks()
            words_of_part, place = _words(part.cast(pa.large_string()))  # a bundle may hold either kind
            words.append(words_of_part)
            places.append(numbers[place + start])
        encoded = pa.chunked_array(words).combine_chunks().dictionary_encode()
        order = pc.sort_indices(encoded.dictionary).to_numpy()
        self._vocabulary = encoded.dictionary.take(pa.array(order))  # (V,) by code points, as Python compares
        edges = np.append(np.arange(0, len(order), _WORDS_IN_A_GROUP), len(order))
        groups = pa.ListArray.from_arrays(edges.astype(np.int32), self._vocabulary)
        self._groups = pc.binary_join(groups, pa.scalar(" ", pa.large_string()))
        number_of_word = np.empty(len(order), dtype=np.int32)
        number_of_word[order] = np.arange(len(order), dtype=np.int32)
        word = number_of_word[encoded.indices.to_numpy()]
        self._titles = np.concatenate(places)[np.argsort(word, kind="stable")]  # (P,) those of a word together
        self._counts = np.bincount(word, minlength=len(order)).astype(np.int32)  # (V,) how many those are
        self._first = np.concatenate(([0], np.cumsum(self._counts)))  # (V + 1,) where they begin
        self._num_titles = len(titles)

    @property
    def num_bytes(self) -> int:
        """What it holds in memory."""
        return int(
            sum(part.nbytes for part in (self._vocabulary, self._groups, self._titles, self._counts, self._first))
        )

    def matches(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """The numbers of titles, ascending, in which each of `words` begins a word; without words, none.

        A word of the query that begins none in any title matches inside words instead.

        Args:
            words: as `folded_words` gives them.
        """
        found = np.full(self._num_titles, bool(words))
        for word in sorted(words, key=len, reverse=True):  # long words are rare: what nothing matches ends early
            holds = np.zeros(self._num_titles, dtype=bool)
            holds[self._titles_with(word)] = True
            found &= holds
            if not found.any():
                break
        return np.flatnonzero(found)

    def _titles_with(self, word: str) -> npt.NDArray[np.int32]:
        first, past = (
            bisect_left(self._vocabulary, end, key=lambda entry: entry.as_py()) for end in (word, word + _AFTER)
        )
        if past > first:
            return self._titles[self._first[first] : self._first[past]]
        return self._titles[np.repeat(self._holding(word), self._counts)]

    def _holding(self, word: str) -> npt.NDArray[np.bool_]:
        """``(V,)`` the words that `word` lies in."""
        # Letters and digits only, so the word is a pattern of itself; Arrow looks for patterns faster than for strings.
        groups = np.asarray(pc.match_substring_regex(self._groups, word))
        held = np.repeat(groups, _WORDS_IN_A_GROUP)[: len(self._vocabulary)]
        held[held] = np.asarray(pc.match_substring(self._vocabulary.filter(pa.array(held)), word))
        return held


def folded_words(text: str, most: int) -> list[str]:
    """The first distinct words of a text as the index knows them."""
    words, _ = _words(pa.array([text.encode("utf-8", "replace").decode()]))
    return list(dict.fromkeys(words.to_pylist()))[:most]


def _words(texts: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Runs of letters and digits, without case and accents, and the place of the text each is of."""
    plain = pc.replace_substring_regex(pc.utf8_normalize(texts, form="NFKD"), _ACCENTS, "")
    words = pc.list_slice(pc.split_pattern_regex(pc.utf8_lower(plain), _BETWEEN_WORDS), 0, MAX_WORDS)
    flat = pc.utf8_slice_codeunits(pc.list_flatten(words), 0, MAX_LETTERS)
    places = pc.list_parent_indices(words).to_numpy().astype(np.int32)
    there = pc.not_equal(flat, "")  # what stands between words may begin or end a text
    return flat.filter(there), places[np.asarray(there)]
