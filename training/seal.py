"""Stage `seal`: golden answers, metrics, card and manifest make a bundle of the draft."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrec.bundle import Bundle, Manifest, load_draft
from genrec.bundle import seal as seal_bundle
from genrec.golden import GoldenAnswer, measure_reduced
from genrec.recommender import Recommender
from genrec.requests import Request
from training.card import model_card
from training.corpus import sample
from training.evaluate import EXAMPLES, METRICS
from training.recipe import dump_recipe
from training.report.health import semantic_id_pictures
from training.report.page import Story, report_page
from training.sequences import Sequences, load_sequences
from training.stage import Stage, StageContext

BUNDLE = "bundle"


def run(context: StageContext) -> None:
    """`assemble`, `evaluate` -> ``bundle/``."""
    recipe, inputs = context.recipe, context.inputs
    draft = inputs["assemble"] / "draft"
    bundle = load_draft(draft, dtype="float32")
    requests = golden_requests(
        load_sequences(inputs["prepare"]), recipe.bundle.golden_requests, recipe.seed, k=min(10, recipe.bundle.max_k)
    )
    golden = answer_golden(bundle, requests)
    reduced_bundle = load_draft(draft, dtype="bfloat16")
    reduced = measure_reduced(reduced_bundle, golden, scored_lists(reduced_bundle, requests))
    context.progress.say(
        f"{len(golden)} golden answers; in bfloat16 scores stray by {reduced.strayed:.3f} and lists overlap by "
        f"{reduced.overlap:.2f}"
    )
    story = read_story(bundle.manifest, inputs)
    extra: dict[str, Path | str] = {
        "golden.jsonl": "".join(answer.to_json() + "\n" for answer in golden),
        "README.md": model_card(bundle.manifest, story.metrics, story.prepared),
        "training/recipe.toml": dump_recipe(recipe),
        "training/semantic_ids.md": inputs["quantize"] / "report.md",
        "training/report.html": report_page(story),
    }
    for file in (METRICS, "comparison.png", "curves.png"):
        if (inputs["evaluate"] / file).is_file():
            extra[f"training/{file}"] = inputs["evaluate"] / file
    if "churn" in inputs:
        extra["training/churn.json"] = inputs["churn"] / "churn.json"
    manifest = seal_bundle(draft, context.output / BUNDLE, extra=extra, golden=reduced.allowance)
    context.progress.say(f"sealed {manifest.name} {manifest.version}")


def read_story(manifest: Manifest, inputs: Mapping[str, Path]) -> Story:
    """What the stages before have to tell, for the page and the card."""
    prepared, quantized = (_read(inputs[stage] / "report.json") for stage in ("prepare", "quantize"))
    return Story(
        manifest=manifest,
        metrics=_read(inputs["evaluate"] / METRICS),
        examples=_read(inputs["evaluate"] / EXAMPLES),
        pictures=inputs["evaluate"],
        prepared=prepared,
        quantized=quantized,
        health=semantic_id_pictures(inputs["quantize"], quantized),
        changes=_read(inputs["churn"] / "report.json")["notes"] if "churn" in inputs else (),
    )


def golden_requests(sequences: Sequences, count: int, seed: int, k: int) -> list[Request]:
    """Histories of validation users, of any if nothing is held out; every other may be answered with its own items."""
    histories = [case.history for case in sequences.validation_cases()] or sequences.training_sequences()
    return [
        Request([sequences.item_ids[row] for row in history], k=k, exclude_history=place % 2 == 0)
        for place, history in enumerate(sample(histories, count, seed))
    ]


def answer_golden(bundle: Bundle, requests: list[Request]) -> list[GoldenAnswer]:
    """What the bundle answers now, as lines of golden.jsonl."""
    return [
        GoldenAnswer(
            {"history": list(request.history), "k": request.k, "exclude_history": request.exclude_history}, items
        )
        for request, items in zip(requests, scored_lists(bundle, requests), strict=True)
    ]


def scored_lists(bundle: Bundle, requests: list[Request]) -> list[list[tuple[str, float]]]:
    """Items and scores for each request, by Hugging Face `generate`: every other engine is then held to it at load."""
    return [answer.scored_list for answer in Recommender.of(bundle, engine="generate").recommend(requests)]


def _read(file: Path) -> Any:  # noqa: ANN401  (plain JSON values)
    return json.loads(file.read_text(encoding="utf-8"))


STAGE = Stage(
    name="seal",
    needs=("prepare", "quantize", "assemble", "evaluate"),
    section=lambda recipe: recipe,
    run=run,
)
