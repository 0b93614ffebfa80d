"""T5 read by us gives what T5 gives by itself."""

import gc
import weakref

import numpy as np
import pytest
import torch

from genrec.decoding.engine import Query
from genrec.decoding.padding import pad_prompts
from genrec.decoding.t5 import T5Decoder
from tests.genrec.decoding.small_models import (
    T5S,
    assert_engines_agree,
    beam_engine,
    everything,
    found,
    generate_engine,
    only,
    prompts,
    random_trie,
    small_model,
)


@pytest.mark.parametrize("name", T5S)
@pytest.mark.parametrize("num_beams", [1, 10, 50])
def test_every_kind_of_t5_gives_what_generate_gives(name: str, num_beams: int) -> None:
    model, trie = small_model(name, std=0.2), random_trie(200, (8, 8, 8))
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    assert isinstance(beam.decoder, T5Decoder)
    half = np.random.default_rng(0).random(200) < 0.5
    limits = [everything(trie), only(half, range(20)), everything(trie, range(195))]
    queries = [Query(prompt, limit) for prompt, limit in zip(prompts((7, 40, 1), 28), limits, strict=True)]
    assert_engines_agree(beam, generate, queries, num_beams)
    rows = np.arange(0, 200, 7)
    for query in queries:
        np.testing.assert_allclose(beam.score(query, rows).scores, generate.score(query, rows).scores, atol=1e-4)


def test_prompts_longer_than_the_farthest_bucket_are_read() -> None:
    model, trie = small_model("t5"), random_trie(200, (8, 8, 8))  # buckets end at distance 128
    beam, generate = beam_engine(model, trie), generate_engine(model, trie)
    queries = [Query(prompt, everything(trie)) for prompt in prompts((300, 12, 129, 128), 28)]
    for query in queries:  # a short prompt after a long one, too
        assert_engines_agree(beam, generate, [query], 10)
    assert_engines_agree(beam, generate, queries, 10)


def test_a_table_that_was_outgrown_stays_where_it_is() -> None:
    trie = random_trie(50, (5, 5, 5))
    engine = beam_engine(small_model("t5"), trie)
    assert isinstance(engine.decoder, T5Decoder)
    found(engine.search([Query([4, 5], everything(trie))], 5)[0])
    table = weakref.ref(engine.decoder._encoder._bias._table)  # a graph on a GPU would have recorded its address
    found(engine.search([Query(prompts((90,), 19)[0], everything(trie))], 5)[0])
    gc.collect()
    assert table() is not None
    assert engine.decoder._encoder._bias._table is not table()


def test_scores_are_divided_as_the_head_asks() -> None:
    trie = random_trie(50, (5, 5, 5))
    query = Query([4, 5], everything(trie))
    models = [small_model(name) for name in ("t5-untied", "t5-untied-scaled")]
    models[1].load_state_dict(models[0].state_dict())
    scores = [found(beam_engine(model, trie).search([query], 50)[0]).scores for model in models]
    assert scores[0].std() > 2 * scores[1].std()  # logits of the second are smaller by sqrt(d_model)


@torch.inference_mode()
def test_steps_can_be_forgotten_and_the_prompt_kept() -> None:
    trie = random_trie(50, (5, 5, 5))
    decoder = beam_engine(small_model("t5"), trie).decoder
    progress, _ = decoder.prefill(pad_prompts([[4, 5, 6], [7]], left=False), num_slots=6)
    tokens, root = torch.tensor([[4, 5], [6, 7]]), torch.zeros(2, 2, dtype=torch.int64)
    first = decoder.step(progress, tokens, root)
    second = decoder.step(progress, tokens + 5, torch.tensor([[1, 0], [0, 0]]))
    progress.rewind()
    torch.testing.assert_close(decoder.step(progress, tokens, root), first, rtol=0, atol=0)
    again = decoder.step(progress, tokens + 5, torch.tensor([[1, 0], [0, 0]]))
    torch.testing.assert_close(again, second, rtol=0, atol=0)
