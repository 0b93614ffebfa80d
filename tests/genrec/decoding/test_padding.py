"""Prompts of different lengths become one tensor and a mask."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.padding import pad_prompts


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=5), st.booleans())
def test_the_mask_picks_the_prompts_out_again(prompts: list[list[int]], left: bool) -> None:
    padded = pad_prompts(prompts, left=left)
    assert padded.ids.shape == padded.mask.shape == (len(prompts), max(map(len, prompts)))
    assert padded.ids.dtype == padded.mask.dtype == torch.int64
    assert [ids[mask == 1].tolist() for ids, mask in zip(padded.ids, padded.mask, strict=True)] == prompts
    assert int(padded.ids[padded.mask == 0].sum()) == 0


@pytest.mark.parametrize(("left", "ids"), [(True, [[1, 2, 3], [0, 0, 4]]), (False, [[1, 2, 3], [4, 0, 0]])])
def test_padding_stands_on_the_side_asked_for(left: bool, ids: list[list[int]]) -> None:
    assert pad_prompts([[1, 2, 3], [4]], left=left).ids.tolist() == ids
