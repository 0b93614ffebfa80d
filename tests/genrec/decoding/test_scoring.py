"""Scores of given paths are those of the model asked token by token, one prompt at a time, without padding."""

import pytest
import torch
from transformers import PreTrainedModel

from genrec.decoding.scoring import path_log_probs
from genrec.recommender import Recommender

HISTORIES = [[0], [1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
TARGETS = [11, 0, 39, 8]


@torch.inference_mode()
def token_by_token(model: PreTrainedModel, prompt: list[int], path: list[int], prefix: list[int]) -> list[float]:
    found = []
    for level, token in enumerate(path):
        if model.config.is_encoder_decoder:
            fed = torch.tensor([prefix + path[:level]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=fed).logits
        else:
            logits = model(input_ids=torch.tensor([prompt + path[:level]])).logits
        found.append(float(logits[0, -1].double().log_softmax(0)[token]))
    return found


@pytest.mark.parametrize("more_prefix", [[], [3, 2]])
def test_a_batch_of_paths_scores_as_each_path_alone(recommender: Recommender, more_prefix: list[int]) -> None:
    bundle = recommender.bundle
    prefix = [*bundle.manifest.decoder_prefix_ids, *more_prefix]
    prompts = [bundle.encoder.encode(history) for history in HISTORIES]
    paths = [bundle.encoder.target(target) for target in TARGETS]
    found = path_log_probs(bundle.model, prompts, paths, prefix)
    assert (found.shape, found.dtype) == ((4, 3), torch.float32)
    expected = [token_by_token(bundle.model, prompt, path, prefix) for prompt, path in zip(prompts, paths, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_probabilities_of_all_first_tokens_sum_to_one(recommender: Recommender) -> None:
    bundle = recommender.bundle
    vocabulary = bundle.model.config.vocab_size
    prompt = bundle.encoder.encode([3, 1])
    every = path_log_probs(
        bundle.model,
        [prompt] * vocabulary,
        [[token] for token in range(vocabulary)],
        bundle.manifest.decoder_prefix_ids,
    )
    assert float(every.exp().sum()) == pytest.approx(1.0, abs=1e-5)
