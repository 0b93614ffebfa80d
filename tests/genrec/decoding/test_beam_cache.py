"""Beams that share slots see what each of them would see alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoding.beam_cache import BeamCache


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_beam_sees_its_prefix_its_ancestors_and_itself(data: st.DataObject) -> None:
    rows, prefix = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    padded = [data.draw(st.integers(0, prefix - 1)) for _ in range(rows)]
    mask = torch.zeros(rows, prefix)
    for row, count in enumerate(padded):
        mask[row, prefix - count :] = -torch.inf
    cache = BeamCache.allocate(1, mask, 12, 2, 4)
    start = [set(range(prefix - count)) for count in padded]

    def walk() -> None:
        seen, filled = [[slots] for slots in start], prefix
        for _ in range(3):
            width = data.draw(st.integers(1, 4))
            parents = [[data.draw(st.integers(0, len(seen[row]) - 1)) for _ in range(width)] for row in range(rows)]
            cache.branch(torch.tensor(parents))
            seen = [
                [seen[row][parent] | {filled + beam} for beam, parent in enumerate(parents[row])] for row in range(rows)
            ]
            filled += width
            found = [[set((beam == 0).nonzero().flatten().tolist()) for beam in row] for row in cache.mask]
            assert found == seen
            assert set(cache.mask.unique().tolist()) <= {0.0, -torch.inf}

    walk()
    cache.rewind()
    assert cache.filled == prefix
    walk()
