"""What a model holds of each token of the true item, the tokens before it given (teacher-forced).

Through `Engine.steps`, so every model that can be served can be measured. Shapes: C cases, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.allowed import AllowedItems
from genrec.decoding.engine import Query
from genrec.recommender import Recommender
from training.metrics import FloatArray
from training.progress import Progress
from training.sequences import EvaluationCase, Sequences


@dataclass(frozen=True, slots=True, eq=False)
class Likelihood:
    """Teacher-forced measures of the cases whose target the bundle knows.

    Attributes:
        cases: The cases, C of them.
        log_likelihoods: (C, L) nats, over the full vocabulary, before any constraint.
        hits: (C, L) bool, whether the true token is the likeliest of those that its level has anywhere in the trie.
    """

    cases: Sequence[EvaluationCase]
    log_likelihoods: FloatArray
    hits: np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def measure_likelihood(
    recommender: Recommender, sequences: Sequences, cases: Sequence[EvaluationCase], progress: Progress
) -> Likelihood:
    """Walk the true path of each case. One without a known target, or without a known item before it, is left out."""
    bundle = recommender.bundle
    levels = [np.unique(bundle.encoder.paths[:, level]) for level in range(bundle.manifest.num_levels)]
    root = np.zeros(1, dtype=np.int64)
    walked, log_likelihoods, hits = [], [], []
    with progress.task("evaluate likelihood", len(cases)) as advance:
        for case in cases:
            advance(1)
            rows = [bundle.catalog.row(sequences.item_ids[row]) for row in (*case.history.tolist(), case.target)]
            history, target = [row for row in rows[:-1] if row is not None], rows[-1]
            if target is None or not history:
                continue
            allowed = AllowedItems.all_but((), recommender.availability.mask)
            steps = recommender.engine.steps(Query(bundle.encoder.encode(history), allowed), 1)
            found = np.empty(len(levels))
            hit = np.empty(len(levels), dtype=bool)
            for level, tokens in enumerate(levels):
                if level:
                    steps.step(bundle.encoder.paths[target, level - 1 : level], root)
                log_probs = steps.log_probs(tokens)[0]
                place = np.searchsorted(tokens, bundle.encoder.paths[target, level])
                found[level], hit[level] = log_probs[place], log_probs.argmax() == place
            walked.append(case)
            log_likelihoods.append(found)
            hits.append(hit)
    shape = (len(walked), len(levels))
    return Likelihood(walked, np.array(log_likelihoods).reshape(shape), np.array(hits, dtype=bool).reshape(shape))
