"""Llama and its kin read by us give what they give by themselves."""

import numpy as np
import pytest

from genrec.decoding.engine import Query
from genrec.decoding.llama import LlamaDecoder, reads
from tests.genrec.decoding.small_models import (
    LLAMAS,
    assert_engines_agree,
    beam_engine,
    everything,
    generate_engine,
    only,
    prompts,
    random_trie,
    small_model,
)


@pytest.mark.parametrize("name", LLAMAS)
@pytest.mark.parametrize("num_beams", [1, 10, 50])
def test_every_kind_of_llama_gives_what_generate_gives(name: str, num_beams: int) -> None:
    model, trie = small_model(name), random_trie(200, (8, 8, 8))
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    assert isinstance(beam.decoder, LlamaDecoder)
    half = np.random.default_rng(0).random(200) < 0.5
    limits = [everything(trie), only(half, range(20)), everything(trie, range(195)), everything(trie)]
    queries = [Query(prompt, limit) for prompt, limit in zip(prompts((7, 40, 1, 39), 28), limits, strict=True)]
    assert_engines_agree(beam, generate, queries, num_beams)
    rows = np.arange(0, 200, 7)
    for query in queries:
        np.testing.assert_allclose(beam.score(query, rows).scores, generate.score(query, rows).scores, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_types", ["sliding_attention", "full_attention"]),
        ("use_sliding_window", True),
        ("rope_parameters", {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}),
        ("hidden_act", "tanh"),
        ("model_type", "llama4"),
    ],
)
def test_a_model_that_does_more_is_left_to_its_own_forward(key: str, value: object) -> None:
    model = small_model("qwen2")
    assert reads(model)
    setattr(model.config, key, value)
    assert not reads(model)
