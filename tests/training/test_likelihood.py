import dataclasses

import numpy as np
import pytest

from genrec.bundle import load_draft
from genrec.decoding.scoring import path_distributions
from genrec.recommender import Recommender
from genrec.requests import ScoreRequest
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training.likelihood import measure_likelihood
from training.sequences import load_sequences


@pytest.mark.parametrize("engine", ["beam", "generate"])
def test_each_token_has_the_probability_that_the_model_gives_it(finished: Run, engine: str) -> None:
    """Against one forward pass over the whole path, all logits at hand."""
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"), engine=engine)
    bundle, sequences = recommender.bundle, load_sequences(finished.work / "prepare")
    cases = sequences.test_cases()[:6]
    found = measure_likelihood(recommender, sequences, cases, RememberingProgress())
    assert found.cases == cases
    for place, case in enumerate(cases):
        history = [bundle.catalog.row(sequences.item_ids[row]) for row in case.history]
        path = bundle.encoder.paths[bundle.catalog.row(sequences.item_ids[case.target])].tolist()
        (logs,) = path_distributions(
            bundle.model, [bundle.encoder.encode(history)], [path], bundle.manifest.decoder_prefix_ids
        ).numpy()
        for level, token in enumerate(path):
            there = np.unique(bundle.encoder.paths[:, level])
            assert found.log_likelihoods[place, level] == pytest.approx(float(logs[level, token]), abs=1e-4)
            assert found.hits[place, level] == (there[logs[level, there].argmax()] == token)


def test_its_sum_is_the_score_of_the_item(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")
    (case,) = sequences.test_cases()[:1]
    found = measure_likelihood(recommender, sequences, [case], RememberingProgress())
    asked = ScoreRequest([sequences.item_ids[row] for row in case.history], [sequences.item_ids[case.target]])
    score = recommender.score(asked).items[0].score
    assert score == pytest.approx(found.log_likelihoods.sum() / found.log_likelihoods.shape[1], abs=1e-4)


def test_a_target_or_a_history_that_the_bundle_does_not_know_is_left_out(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")
    cases = sequences.test_cases()[:3]
    renamed = list(sequences.item_ids)
    renamed[cases[0].target] = "unheard of"
    for row in cases[1].history:
        renamed[row] = f"unheard of {row}"
    other = dataclasses.replace(sequences, item_ids=renamed)
    left = measure_likelihood(recommender, other, cases, RememberingProgress())
    assert not any(case.target == cases[0].target for case in left.cases)
    assert not any(np.array_equal(case.history, cases[1].history) for case in left.cases)
    empty = measure_likelihood(recommender, other, cases[:1], RememberingProgress())
    assert empty.log_likelihoods.shape == (0, recommender.bundle.manifest.num_levels)
