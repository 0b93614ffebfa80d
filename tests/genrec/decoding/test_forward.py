"""Other decoder-only models run through their own forward, if they prove that they keep to masks and positions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from genrec.decoding import beam as beam_module
from genrec.decoding.engine import Query
from genrec.decoding.forward import ForwardDecoder
from tests.genrec.decoding.small_models import (
    LONGEST_PROMPT,
    OTHERS,
    assert_engines_agree,
    beam_engine,
    everything,
    generate_engine,
    only,
    prompts,
    random_trie,
    small_model,
)


@pytest.mark.parametrize("name", OTHERS)
def test_any_decoder_gives_what_generate_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # 50 beams fill more slots than the window of some of them is long, which none of their sequences is
    model, trie = small_model(name), random_trie(200, (8, 8, 8))
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    assert isinstance(beam.decoder, ForwardDecoder)
    half = np.random.default_rng(0).random(200) < 0.5
    limits = [everything(trie), only(half, range(20)), everything(trie, range(195)), everything(trie)]
    lengths = (7, LONGEST_PROMPT, 1, LONGEST_PROMPT - 1)
    queries = [Query(prompt, limit) for prompt, limit in zip(prompts(lengths, 28), limits, strict=True)]
    for num_beams in (1, 10, 50):
        assert_engines_agree(beam, generate, queries, num_beams)
    rows = np.arange(0, 200, 7)
    monkeypatch.setattr(beam_module, "_SCORED_AT_ONCE", 11)  # so that steps are forgotten and taken anew
    for query in queries:
        np.testing.assert_allclose(beam.score(query, rows).scores, generate.score(query, rows).scores, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["phi", "gpt2", "olmo2"])
def test_rounding_is_no_reason_to_fail_the_proof(name: str, dtype: torch.dtype) -> None:
    trie = random_trie(200, (8, 8, 8))
    for seed in range(3):
        assert isinstance(beam_engine(small_model(name, dtype=dtype, seed=seed), trie).decoder, ForwardDecoder)


def _without_mask(named: dict[str, torch.Tensor]) -> None:
    if named["attention_mask"] is not None and named["attention_mask"].dim() == 4:
        named["attention_mask"] = torch.zeros_like(named["attention_mask"])


def _without_positions(named: dict[str, torch.Tensor]) -> None:
    if named.get("attention_mask") is not None and named["attention_mask"].dim() == 4:
        width = named["position_ids"].shape[1]
        named["position_ids"] = named["position_ids"][:, :1] + torch.arange(width)


@pytest.mark.parametrize("ignore", [_without_mask, _without_positions])
@pytest.mark.parametrize("sizes", [(8, 8, 8), (1, 20, 20)], ids=["many first tokens", "one first token"])
def test_a_model_that_ignores_what_it_is_given_fails_the_proof(
    ignore: Callable[[dict[str, torch.Tensor]], None], sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, trie = small_model("phi", std=0.1), random_trie(100, sizes)
    plain = model.forward

    def forward(**named: torch.Tensor) -> object:
        ignore(named)
        return plain(**named)

    beam_engine(model, trie)
    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(Exception, match="engine 'beam' cannot read"):
        beam_engine(model, trie)
