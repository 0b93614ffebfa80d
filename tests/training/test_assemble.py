import json
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from genrec.bundle import load_draft
from genrec.recommender import Recommender
from tests.training.runs import Run
from training import assemble
from training.assemble import git_commit, provenance, read_catalog
from training.sequences import load_sequences


def test_the_draft_states_what_the_recipe_and_the_stages_before_fixed(finished: Run) -> None:
    manifest = load_draft(finished.work / "assemble" / "draft").manifest
    assert manifest.name == finished.recipe().name
    assert manifest.codebook_sizes[:2] == (8, 8)
    tokens = json.loads((finished.work / "vocabulary" / "item_tokens.json").read_text())
    assert [list(level) for level in manifest.item_token_ids] == tokens
    assert (manifest.generation.num_beams, manifest.generation.max_k) == (10, 20)
    if finished.architecture == "seq2seq":
        assert manifest.decoder_prefix_ids == (0,)
        assert (manifest.prompt.prefix_ids, manifest.prompt.suffix_ids) == ((), (1,))
    else:
        assert manifest.decoder_prefix_ids == ()
        assert (manifest.prompt.prefix_ids, manifest.prompt.suffix_ids) == ((3,), ())
    assert manifest.prompt.max_history_items == 8


def test_the_catalog_has_every_item_with_its_codes_titles_and_training_popularity(finished: Run) -> None:
    catalog = load_draft(finished.work / "assemble" / "draft").catalog
    items = pq.read_table(finished.work / "prepare" / "items.parquet").to_pylist()
    codes = {row.pop("item_id"): tuple(row.values()) for row in
             pq.read_table(finished.work / "quantize" / "semantic_ids.parquet").to_pylist()}  # fmt: skip
    interactions = pq.read_table(finished.work / "prepare" / "interactions.parquet").to_pylist()
    training = [row["item_id"] for row in interactions if row["split"] == "train"]
    assert len(catalog) == len(items)
    for item in items:
        row = catalog.row(item["item_id"])
        assert row is not None
        assert catalog.semantic_id(row) == codes[item["item_id"]]
        assert catalog.describe(row)["title"] == item["title"]
        assert catalog.popularity[row] == training.count(item["item_id"])


def test_popularity_counts_nothing_that_is_held_out(finished: Run) -> None:
    counts = read_catalog({name: finished.work / name for name in ("prepare", "quantize")}).popularity
    sequences = load_sequences(finished.work / "prepare")
    assert counts.sum() == sum(map(len, sequences.training_sequences())) < len(sequences.items)


def test_the_provenance_says_where_it_comes_from(finished: Run) -> None:
    facts = load_draft(finished.work / "assemble" / "draft").manifest.provenance
    assert set(facts) == {"base_model", "method", "dataset", "dataset_sha256", "seed", "git_commit", "libraries"}
    assert facts["base_model"] == ("t5" if finished.architecture == "seq2seq" else "llama") + " from scratch"
    assert facts["method"] == "pretrained on the same data, then LoRA r=4 alpha=8, merged"
    assert facts["dataset_sha256"] == json.loads(
        (finished.work / "prepare" / "report.json").read_text()
    )["interactions_sha256"]  # fmt: skip
    assert set(facts["libraries"]) == {"genrec", "torch", "transformers", "peft", "numpy"}


def test_other_methods_and_bases_are_told_apart(finished: Run) -> None:
    full = finished.recipe('finetune.method="full"').model_copy(update={"pretrain": None})
    facts = provenance(full, finished.work / "prepare")
    assert facts["method"] == "all parameters fine-tuned"
    both = finished.recipe("finetune.lora.use_dora=true", "finetune.lora.use_rslora=true")
    told = provenance(both, finished.work / "prepare")["method"]
    assert told == "pretrained on the same data, then DoRA r=4 alpha=8 rank-stabilised, merged"
    model = full.model.model_copy(update={"checkpoint": "some/base", "config": None})
    assert provenance(full.model_copy(update={"model": model}), finished.work / "prepare")["base_model"] == "some/base"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert git_commit() is None


def test_the_quantizer_comes_along(finished: Run) -> None:
    quantizer = finished.work / "assemble" / "draft" / "quantizer"
    assert {path.name for path in quantizer.iterdir()} == {
        "quantizer.json", "codebooks.safetensors", "embedder.json", "embedder.safetensors",
    }  # fmt: skip
    stage = {path.name for path in (finished.work / "assemble").iterdir()}
    assert stage == {"draft", "stage.json"}


@pytest.fixture(scope="module")
def short(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run with weights stored in bfloat16, and fewer items to ask for than a golden answer would have."""
    run = finished.copy(tmp_path_factory.mktemp("short") / "work", until="merge")
    assert run.again('bundle.dtype="bfloat16"', "bundle.max_k=6", "evaluate.cutoffs=[5]") == [
        "assemble", "baselines", "evaluate", "seal"
    ]  # fmt: skip
    return run


def test_weights_stored_in_bfloat16_are_half_as_large_and_rounded_once(finished: Run, short: Run) -> None:
    with safe_open(short.bundle / "model" / "model.safetensors", framework="np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    assert Recommender.load(short.bundle, device="cpu", dtype="float32").dtype == "float32"
    whole = load_draft(finished.work / "assemble" / "draft").model.get_input_embeddings().weight.detach()
    rounded = load_draft(short.work / "assemble" / "draft", dtype="float32").model.get_input_embeddings().weight
    assert np.array_equal(whole.bfloat16().float().numpy(), rounded.detach().numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bundle_of_bfloat16_meets_its_golden_answers_in_either_dtype(short: Run, dtype: str) -> None:
    recommender = Recommender.load(short.bundle, device="cpu", dtype=dtype)
    assert recommender.dtype == dtype
    assert recommender.bundle.manifest.dtype == "bfloat16"


def test_golden_answers_are_no_longer_than_a_request_may_ask_for(short: Run) -> None:
    lines = (short.bundle / "golden.jsonl").read_text().splitlines()
    assert {json.loads(line)["request"]["k"] for line in lines} == {6}


def test_the_libraries_that_are_named_are_installed() -> None:
    assert all(assemble.version(name) for name in assemble.LIBRARIES)
