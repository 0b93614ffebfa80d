"""Brute force: score every item of a catalog one by one. Slow, and short enough to trust."""

from collections.abc import Sequence

import numpy as np
import torch

from genrec.bundle import Bundle
from genrec.decoding.scoring import path_log_probs


def path_log_probs_of(bundle: Bundle, prompt: list[int], path: Sequence[int]) -> torch.Tensor:
    """``(L,)`` log-probabilities of the tokens of a path, or of the beginning of one."""
    prefix = bundle.manifest.decoder_prefix_ids
    return path_log_probs(bundle.model, [prompt], [list(path)], prefix, bundle.model_inputs)[0]


def score_all(bundle: Bundle, history: list[str]) -> dict[str, float]:
    """Item id -> score, for every item, each with a forward pass of its own path."""
    catalog = bundle.catalog
    rows = [row for item_id in history if (row := catalog.row(item_id)) is not None]
    prompt = bundle.encoder.encode(rows)
    manifest = bundle.manifest
    scores = {}
    for row in range(len(catalog)):
        log_probs = path_log_probs_of(bundle, prompt, bundle.encoder.target(row))
        scores[catalog.item_id(row)] = float(log_probs.sum()) / manifest.num_levels**manifest.generation.length_penalty
    return scores


def best(scores: dict[str, float], k: int, excluded: set[str]) -> list[tuple[str, float]]:
    """The k best items that are not excluded."""
    allowed = [(item, score) for item, score in scores.items() if item not in excluded]
    return sorted(allowed, key=lambda pair: -pair[1])[:k]


def constrained_probabilities(bundle: Bundle, history: list[str], excluded: set[str]) -> dict[str, float]:
    """Item id -> probability under the model renormalised at every level over tokens that lead to an allowed item."""
    catalog, manifest = bundle.catalog, bundle.manifest
    prompt = bundle.encoder.encode([row for item in history if (row := catalog.row(item)) is not None])
    allowed = [row for row in range(len(catalog)) if catalog.item_id(row) not in excluded]
    paths = {row: tuple(bundle.encoder.target(row)) for row in allowed}
    log_probs = {row: path_log_probs_of(bundle, prompt, path) for row, path in paths.items()}
    probabilities = {}
    for row, path in paths.items():
        total = 0.0
        for level in range(manifest.num_levels):
            siblings = {p[level]: float(log_probs[r][level]) for r, p in paths.items() if p[:level] == path[:level]}
            total += siblings[path[level]] - float(torch.logsumexp(torch.tensor(list(siblings.values())), 0))
        probabilities[catalog.item_id(row)] = float(np.exp(total))
    return probabilities


def beam_search(bundle: Bundle, history: list[str], width: int, excluded: set[str]) -> tuple[dict[str, float], float]:
    """Beam search over the allowed items, a prefix at a time: item id -> score, and the best score that was pruned."""
    catalog, manifest = bundle.catalog, bundle.manifest
    prompt = bundle.encoder.encode([row for item in history if (row := catalog.row(item)) is not None])
    paths = {
        tuple(bundle.encoder.target(row)): catalog.item_id(row)
        for row in range(len(catalog))
        if catalog.item_id(row) not in excluded
    }
    divisor = manifest.num_levels**manifest.generation.length_penalty
    kept: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    bound = -np.inf
    for level in range(manifest.num_levels):
        prefixes = sorted({path[: level + 1] for path in paths if path[:level] in {prefix for _, prefix in kept}})
        scored = [(float(path_log_probs_of(bundle, prompt, prefix).sum()), prefix) for prefix in prefixes]
        scored.sort(reverse=True)
        kept = scored[:width]
        bound = max([bound, *(score / divisor for score, _ in scored[width:])])
    return {paths[prefix]: score / divisor for score, prefix in kept}, bound
