"""The trie on the device is the trie."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoding.device_trie import DeviceTrie
from genrec.trie import ItemTrie
from tests.genrec.decoding.small_models import random_trie
from tests.genrec.decoding.table import random_paths


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000), st.floats(0.01, 1))
def test_children_and_tokens_are_those_of_the_trie(levels: int, seed: int, share: float) -> None:
    num_items = max(1, int(share * min(6**levels, 200)))
    trie = ItemTrie.from_sorted(random_paths(np.random.default_rng(seed), levels, num_items))
    found = DeviceTrie.of(trie, "cpu")
    assert found.num_levels == levels
    for level in range(levels):
        widths = np.diff(trie.indptr[level])
        assert found.indptr[level].tolist() == trie.indptr[level].tolist()
        assert found.widest[level] == widths.max()
        assert found.num_nodes(level) == len(widths)
        nodes = torch.arange(found.num_nodes(level + 1))
        assert found.token_of(level, nodes).tolist() == trie.token[level].tolist()
        assert found.tokens[level].tolist() == sorted(set(trie.token[level].tolist()))
    assert found.num_nodes(levels) == trie.num_items


def test_columns_are_small_where_the_level_is() -> None:
    assert [column.dtype for column in DeviceTrie.of(random_trie(100, (9, 9, 9)), "cpu").column] == [torch.int16] * 3
    wide = ItemTrie.from_sorted(np.arange(4, 4 + 32768, dtype=np.int32)[:, None])
    found = DeviceTrie.of(wide, "cpu")
    assert found.column[0].dtype == torch.int32
    assert found.token_of(0, torch.tensor([0, 32767])).tolist() == [4, 4 + 32767]
    most = ItemTrie.from_sorted(np.arange(4, 4 + 32767, dtype=np.int32)[:, None])
    assert DeviceTrie.of(most, "cpu").token_of(0, torch.tensor([32766])).tolist() == [4 + 32766]


@pytest.mark.parametrize("num_items", [10_000, 100_000])
def test_an_item_takes_less_than_sixteen_bytes(num_items: int) -> None:
    assert DeviceTrie.of(random_trie(num_items, (256, 256, 256)), "cpu").num_bytes <= 16 * num_items
