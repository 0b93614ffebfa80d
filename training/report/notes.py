"""What a careful reader must be told, as sentences: how it was measured, and what the numbers do not say.

Shared by the page and the model card. Knows facts, not how they are laid out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from training.rank_table import MODEL
from training.results import headline_columns, main_results


def protocol_notes(metrics: Mapping[str, Any]) -> Iterator[str]:
    """How it was measured."""
    protocol = metrics["protocol"]
    main, baselines, _ = main_results(metrics)
    users, cases = metrics["users"][main], metrics.get("cases", metrics["users"])[main]
    yield (
        f"Every evaluated user's history goes in and the next item is looked for: {users:,} users"
        + (f", {cases:,} held-out items" if cases != users else "")
        + f" ({main}; {protocol.get('users', 'all')})."
    )
    yield f"Ranking: {protocol['ranking']}; a search of {protocol['num_beams']} beams by the engine that serves."
    yield "Intervals: 95 % percentile bootstrap with users as the unit; differences are paired on the same users."
    if "popularity" in baselines:
        yield (
            "Popularity counts training interactions. The Markov chain lets the last five items vote for what followed "
            "them in training; with validation, it also learns from validation items, which the model reads in a test "
            "user's history. Tied items share the expected rank."
        )
    if "sasrec" in metrics:
        yield _sasrec(metrics["sasrec"])


def honest_notes(metrics: Mapping[str, Any], prepared: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers do not say."""
    main, _, _ = main_results(metrics)
    if "refit" in metrics:
        yield metrics["refit"]["note"]
    users = metrics["users"][main]
    recall = headline_columns(metrics[main])[-2]
    spread = (metrics[main][recall]["high"] - metrics[main][recall]["low"]) / 2
    yield (
        f"With {users:,} users {recall} is known to about ±{spread:.3f}, and another seed of training moves it too: "
        "a smaller difference between two runs says nothing. `genrec compare` pools seeds."
    )
    cold = [row for row in metrics.get("buckets", {}).get("target_training_count", []) if row["bucket"] == "0"]
    if cold:
        name, found = next(iter(cold[0]["methods"][MODEL].items()))
        yield (
            f"{cold[0]['cases']:,} targets never occur in training; on those {name} is {found['value']:.4f}. A search "
            "seldom reaches an item that was never a target; /v1/score ranks such candidates exactly."
        )
    if prepared.get("tied_neighbours"):
        yield (
            f"{prepared['tied_neighbours']:.0%} of neighbouring interactions of a user have the same time: their order "
            "is a seeded draw, and with it which item is the target."
        )
    unknown = metrics["protocol"].get("items_the_bundle_does_not_know", 0)
    if unknown:
        yield f"{unknown:,} items of the data are not in the bundle; where one is the target, it counts as a miss."
    yield (
        "It knows the items and habits of its training data only and recommends popular items more than rare ones. It "
        "has not been tested for fairness between groups of users, nor online."
    )


def _sasrec(facts: Mapping[str, Any]) -> str:
    settings = facts["settings"]
    return (
        f"SASRec: {settings['layers']} layers of {settings['dimensions']}, cross-entropy over "
        f"{'the ' + facts['softmax'] if facts['softmax'].startswith('full') else facts['softmax']} at every place of "
        f"the same training histories, the best of {facts['epochs']} epochs on validation."
    )
