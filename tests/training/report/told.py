"""A made-up bundle and evaluation for tests of the page and the card."""

from typing import Any

from genrec.bundle import Manifest, PromptPieces

EVIL = "<script>alert('1')</script> & \"x\""


def cell(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def table(value: float) -> dict[str, dict[str, float]]:
    return {f"{name}@{k}": cell(value) for k in (1, 5, 10) for name in ("recall", "ndcg", "mrr")}


def lead(value: float) -> dict[str, dict[str, float]]:
    return {"recall@10": cell(value), "ndcg@10": cell(value)}


def metrics(**changes: Any) -> dict[str, Any]:
    return {
        "test": table(0.25),
        "baselines": {"popularity": table(0.1), "markov": table(0.26), "sasrec": table(0.4)},
        "differences": {"popularity": lead(0.15), "markov": lead(-0.01), "sasrec": lead(-0.15)},
        "validation": table(0.3),
        "validation_baselines": {"popularity": table(0.11)},
        "validation_differences": {"popularity": lead(0.19)},
        "buckets": {
            "split": "test",
            "target_training_count": [{"bucket": "0", "cases": 17, "methods": {"model": {"recall@10": cell(0.06)}}}],
            "history_length": [],
        },
        "users": {"test": 1234, "validation": 1234},
        "cases": {"test": 1300, "validation": 1234},
        "coverage": {"distinct_items": 96, "catalog_size": 128, "k": 10},
        "likelihood": {
            "cases": 5,
            "item_log_likelihood": cell(-6.0),
            "levels": [{"level": level, "accuracy": 0.5, "log_likelihood": -3.25} for level in range(2)],
        },
        "sasrec": {
            "softmax": "8192 sampled items a step", "best_epoch": 3, "epochs": 9, "validation": {},
            "settings": {"layers": 2, "dimensions": 64},
        },
        "protocol": {
            "ranking": "full catalog", "users": "1,234 of 9,000 of test, drawn by seed 1", "num_beams": 20,
            "items_the_bundle_does_not_know": 3,
        },
        **changes,
    }  # fmt: skip


PREPARED: dict[str, Any] = {
    "users": 9000, "items": 128, "interactions": 70_000, "first_time": "1997-09-20T03:05:10+00:00",
    "last_time": "1998-04-22T23:10:38+00:00", "tied_neighbours": 0.51, "split": {"train": 68_000, "test": 1000},
}  # fmt: skip
QUANTIZED: dict[str, Any] = {
    "method": "residual_kmeans",
    "levels": [{"level": level, "size": 64, "codes_used": 60, "entropy_share": 0.9} for level in range(2)],
    "clusters_of_the_first_code": [{"codes": [7], "items": 12, "titles": [EVIL, "Nell (1994)"]}],
}
EXAMPLES: list[dict[str, Any]] = [
    {"history": [EVIL, "b"], "older": 12, "target": "hit me", "items": [{"title": "hit me", "hit": True}]},
    {"history": ["c"], "older": 0, "target": EVIL, "items": [{"title": EVIL, "hit": False}]},
]
MANIFEST = Manifest(
    name="films",
    architecture="causal",
    num_levels=2,
    codebook_sizes=(64, 32),
    item_token_ids=(tuple(range(64)), tuple(range(64, 96))),
    prompt=PromptPieces(max_history_items=50),
    decoder_prefix_ids=(),
    dtype="float32",
    provenance={"base_model": "llama from scratch", "dataset": "<b>own</b>", "seed": 5, "libraries": {"torch": "2.13"}},
)
