import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from genrec.bundle import load_bundle
from genrec.errors import BundleError
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import reseal
from tests.training.runs import Run
from training.recipe import load_recipe
from training.seal import golden_requests
from training.sequences import load_sequences


def golden(bundle: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (bundle / "golden.jsonl").read_text().splitlines()]


def test_the_bundle_holds_what_the_format_says_and_nothing_else(finished: Run) -> None:
    top = {path.relative_to(finished.bundle).as_posix() for path in finished.bundle.rglob("*") if path.is_file()}
    assert {path for path in top if not path.startswith("model/")} == {
        "manifest.json", "golden.jsonl", "README.md",
        "catalog/items.parquet", "catalog/items.marisa", "catalog/ids.marisa",
        "quantizer/quantizer.json", "quantizer/codebooks.safetensors",
        "quantizer/embedder.json", "quantizer/embedder.safetensors",
        "training/recipe.toml", "training/metrics.json", "training/semantic_ids.md", "training/report.html",
        "training/comparison.png", "training/curves.png",
    }  # fmt: skip


def test_golden_answers_are_what_the_sealed_bundle_answers(finished: Run) -> None:
    recommender = Recommender.load(finished.bundle, device="cpu", golden=False)
    lines = golden(finished.bundle)
    assert len(lines) == 4
    for line in lines:
        (answer,) = recommender.recommend([Request(**line["request"])])
        assert [item.item_id for item in answer.items] == [item["item_id"] for item in line["items"]]
        assert [item.score for item in answer.items] == pytest.approx(
            [item["score"] for item in line["items"]], abs=1e-4
        )


def test_half_of_the_golden_requests_allow_items_of_the_history(finished: Run) -> None:
    assert [line["request"]["exclude_history"] for line in golden(finished.bundle)] == [True, False, True, False]


def test_golden_histories_are_of_validation_users_and_end_before_the_validation_item(finished: Run) -> None:
    sequences = load_sequences(finished.work / "prepare")
    training = [[sequences.item_ids[row] for row in rows] for rows in sequences.training_sequences()]
    requests = golden_requests(sequences, 6, seed=1, k=3)
    assert all(list(request.history) in training and request.k == 3 for request in requests)


def test_an_answer_that_changed_is_noticed_at_load(finished: Run, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(finished.bundle, tmp_path / "bundle"))
    lines = golden(bundle)
    lines[1]["items"][0]["score"] -= 0.01
    (bundle / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    reseal(bundle)
    load_bundle(bundle)
    with pytest.raises(BundleError, match="golden answer 2"):
        Recommender.load(bundle, device="cpu")


def test_metrics_and_recipe_in_the_bundle_are_those_of_the_run(finished: Run) -> None:
    training = finished.bundle / "training"
    assert json.loads((training / "metrics.json").read_text()) == finished.metrics
    assert load_recipe(training / "recipe.toml") == finished.recipe()
    assert (training / "semantic_ids.md").read_bytes() == (finished.work / "quantize" / "report.md").read_bytes()


def test_card_and_report_hold_the_numbers(finished: Run) -> None:
    card, page = ((finished.bundle / name).read_text() for name in ("README.md", "training/report.html"))
    for table in (finished.metrics["test"], *finished.metrics["baselines"].values()):
        for name in ("recall@5", "ndcg@5", "recall@10", "ndcg@10"):
            value, low, high = (f"{table[name][end]:.4f}" for end in ("value", "low", "high"))
            assert f"{value} [{low}, {high}]" in card
            assert f">{value}<" in page and f">{low} to {high}<" in page
    for lead in finished.metrics["differences"].values():
        assert f"{lead['recall@10']['value']:+.4f}" in card and f"{lead['recall@10']['value']:+.4f}" in page


def test_the_report_holds_every_picture_and_the_bundle_two_of_them(finished: Run) -> None:
    text = (finished.bundle / "training" / "report.html").read_text()
    plots = json.loads((finished.work / "quantize" / "report.json").read_text())["plots"]
    files = [
        finished.work / "evaluate" / name for name in ("comparison.png", "curves.png", "buckets.png", "coverage.png")
    ]
    for file in (*files, *(finished.work / "quantize" / plot["file"] for plot in plots)):
        assert base64.b64encode(file.read_bytes()).decode() in text
    for name in ("comparison.png", "curves.png"):
        assert (finished.bundle / "training" / name).is_file()


def test_nothing_that_names_users_gets_into_the_bundle(finished: Run) -> None:
    users = set(load_sequences(finished.work / "prepare").user_ids)
    for name in ("README.md", "training/report.html", "training/metrics.json"):
        text = re.sub(r"base64,[^\"]*", "", (finished.bundle / name).read_text())
        assert not users & set(re.findall(r"\w+", text))
    assert not (finished.bundle / "training" / "ranks.parquet").exists()


def test_the_version_is_said_and_stands_in_the_manifest(finished: Run) -> None:
    manifest = load_bundle(finished.bundle).manifest
    assert f"sealed {manifest.name} {manifest.version}" in finished.lines
    assert set(manifest.provenance) >= {"base_model", "method", "dataset", "dataset_sha256", "seed", "libraries"}


def test_what_a_shorter_dtype_may_stray_was_measured(finished: Run) -> None:
    allowed = load_bundle(finished.bundle).manifest.golden
    assert allowed.score_tolerance == 1e-4
    assert 0.05 <= allowed.reduced_tolerance < 0.5
    Recommender.load(finished.bundle, device="cpu", dtype="bfloat16")
