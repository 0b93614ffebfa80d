"""Log-probabilities are over the full vocabulary, and picked for the tokens of a level."""

import pytest
import torch

from genrec.decoding import head as head_module
from genrec.decoding.head import Head

LEVELS = [torch.arange(4, 9), torch.tensor([9, 11, 15]), torch.tensor([20]), torch.arange(30)]


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_the_tokens_of_a_level_are_picked_from_a_softmax_over_all(
    rows: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "_CHUNK_BYTES", 1)  # chunks of 64 rows
    torch.manual_seed(0)
    weight, hidden = torch.randn(30, 8), torch.randn(rows, 8)
    asked = []

    def logits(part: torch.Tensor) -> torch.Tensor:
        asked.append(len(part))
        return part @ weight.T

    head = Head(logits, 30, LEVELS, scale)
    expected = (scale * hidden @ weight.T).log_softmax(1)
    for level, tokens in enumerate(LEVELS):
        asked.clear()
        torch.testing.assert_close(head.log_probs(hidden, level), expected[:, tokens])
        assert max(asked) <= 64
        assert sum(asked) == rows


def test_half_precision_is_normalised_in_float32() -> None:
    logits = (8 * torch.randn(5, 30)).to(torch.bfloat16)
    found = Head(lambda part: part, 30, LEVELS).log_probs(logits, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(5))
