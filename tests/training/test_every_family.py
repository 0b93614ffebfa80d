"""Every family × {LoRA, all parameters}, from a checkpoint as one finds it to an answer over HTTP; some in `make soak`.

One data set, prepared once; then the real stages for each pair: what is proven, bundled and served is the whole path.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from genrec.answers import Answer
from genrec.models import load_model
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.service.fakes import serving
from tests.training.bench import RememberingProgress, recipe
from tests.training.families import TIED, WORDS, architecture_of, write_base
from training.pipeline import run_pipeline
from training.recipe import Recipe
from training.stages import STAGES

pytestmark = pytest.mark.system

# RecT5 is read from a checkpoint of T5: its own two embeddings begin at nothing.
PLUGINS = {"rect5": "t5", "rect5-v1.1": "t5-v1.1"}
FAMILIES = ("llama", "qwen2", "qwen3", "t5", "t5-v1.1", *PLUGINS)
PRUNED = ("qwen3", "rect5-v1.1")
"""Bundled once more, by LoRA and without the tokens of text."""

HISTORIES = ([0], [5, 9, 2], [1, 3, 3, 8, 30, 12, 7, 40, 11, 2])
"""By row; the last is longer than the prompt keeps."""

PROVEN = re.compile(r"gradient proof: (\d+)/\1 input and \1/\1 output rows")
MERGED = re.compile(r"merge proof: .* differs by (\S+) at most")


@dataclass(frozen=True)
class Bundled:
    """A finished run."""

    family: str
    method: str
    work: Path
    lines: tuple[str, ...]

    @property
    def bundle(self) -> Path:
        return self.work / "seal" / "bundle"

    @property
    def base(self) -> str:
        return PLUGINS.get(self.family, self.family)

    def recommender(self, engine: str) -> Recommender:
        return Recommender.load(self.bundle, device="cpu", engine=engine)


def recipe_of(family: str, method: str, base: Path) -> Recipe:
    seq2seq = architecture_of(PLUGINS.get(family, family)) == "seq2seq"
    model = {"architecture": "seq2seq" if seq2seq else "causal", "checkpoint": str(base)}
    return recipe(
        name=f"{family}-{method}",
        embed={"tfidf": {"dimensions": 8}},
        quantize={"codebook_sizes": [8, 8]},
        model=model | ({"plugin": "rect5"} if family in PLUGINS else {}),
        prompt={"suffix": ["</s>"], "max_history_items": 6} if seq2seq else {"prefix": ["<s>"], "max_history_items": 6},
        finetune={
            "method": "full" if method == "full" else "lora",
            "lora": {"r": 2, "lora_alpha": 4},
            "validation_users": 10,
            "recall_users": 2,
            "training_arguments": {
                "max_steps": 4, "eval_steps": 4, "save_steps": 4, "eval_strategy": "steps", "save_strategy": "steps",
                "learning_rate": 0.02, "logging_steps": 2,
            },
        },
        evaluate={"num_users": 6, "bootstrap_samples": 20, "likelihood_users": 2, "examples": 1},
        bundle={"num_beams": 8, "max_k": 20, "golden_requests": 2, "prune_vocabulary": method == "pruned"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory in which the data have semantic IDs; copy it, do not change it."""
    work = tmp_path_factory.mktemp("prepared") / "work"
    run_pipeline(STAGES, recipe_of("llama", "lora", Path("unused")), work, RememberingProgress(), until="quantize")
    return work


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    written: dict[str, Path] = {}

    def base(family: str) -> Path:
        if family not in written:
            written[family] = write_base(family, tmp_path_factory.mktemp(family))
        return written[family]

    return base


PAIRS = [(family, "lora") for family in FAMILIES] + [(family, "full") for family in ("llama", "t5")]
PAIRS += [(family, "pruned") for family in PRUNED]
LONGER = [(family, "full") for family in FAMILIES if (family, "full") not in PAIRS]


@pytest.fixture(
    scope="module", params=[*PAIRS, *(pytest.param(pair, marks=pytest.mark.soak) for pair in LONGER)], ids="-".join
)
def bundled(
    request: pytest.FixtureRequest,
    prepared: Path,
    base_of: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundled:
    family, method = request.param
    work = tmp_path_factory.mktemp("run") / "work"
    shutil.copytree(prepared, work)
    progress = RememberingProgress()
    run_pipeline(STAGES, recipe_of(family, method, base_of(PLUGINS.get(family, family))), work, progress)
    return Bundled(family, method, work, tuple(progress.lines))


def used_tokens(bundled: Bundled) -> list[int]:
    """Ids of the item tokens that some item has, as they were trained."""
    token_ids = json.loads((bundled.work / "vocabulary" / "item_tokens.json").read_text())
    items = pq.read_table(bundled.bundle / "catalog" / "items.parquet")
    levels = enumerate(token_ids)
    return sorted({ids[code] for level, ids in levels for code in items.column(f"code_{level}").to_pylist()})


def answers(recommender: Recommender) -> list[Answer]:
    known = [recommender.bundle.catalog.item_id(row) for row in range(len(recommender.bundle.catalog))]
    requests = [
        Request([known[row % len(known)] for row in history], k=8, exclude_history=exclude)
        for history in HISTORIES
        for exclude in (True, False)
    ]
    return recommender.recommend(requests)


def test_every_row_learns_and_the_bundle_holds_the_model_that_was_trained(bundled: Bundled) -> None:
    said = "\n".join(bundled.lines)
    assert PROVEN.search(said)
    merged = MERGED.search(said)
    assert merged is not None and float(merged[1]) <= (0.0 if bundled.method == "full" else 5e-5)
    assert ("LoRA in" in said) == (bundled.method != "full")


@torch.no_grad()
def test_input_and_output_rows_of_every_item_token_have_moved_and_ties_are_as_they_were(bundled: Bundled) -> None:
    architecture = architecture_of(bundled.base)
    used = used_tokens(bundled)
    before, after = (load_model(bundled.work / stage / "model", architecture) for stage in ("vocabulary", "merge"))
    for side in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, side)().weight for model in (before, after))
        moved = (old - new).abs().amax(1) > 1e-3
        assert moved[used].all()
        if bundled.method != "full":
            assert moved.sum() == len(used)
    tied = after.get_input_embeddings().weight is after.get_output_embeddings().weight
    assert tied == (bundled.base in TIED)
    if architecture == "seq2seq":
        assert after.encoder.embed_tokens.weight is after.decoder.embed_tokens.weight is after.shared.weight
    if bundled.family in PLUGINS:
        assert all(module.weight.abs().sum() > 0 for module in (after.encoder.item_positions, after.encoder.meta_types))


def test_hugging_face_alone_reads_the_bundled_model_as_the_one_we_serve(bundled: Bundled) -> None:
    served = bundled.recommender("generate").bundle.model
    auto = AutoModelForSeq2SeqLM if architecture_of(bundled.base) == "seq2seq" else AutoModelForCausalLM
    read, report = auto.from_pretrained(bundled.bundle / "model", output_loading_info=True)
    assert not any(report.values())
    assert type(read) is type(served)
    ours, theirs = served.state_dict(), read.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    config = json.loads((bundled.bundle / "model" / "config.json").read_text())
    assert config["tie_word_embeddings"] == (bundled.base in TIED)
    assert config["use_cache"] is True
    item_tokens = sum(map(len, json.loads((bundled.work / "vocabulary" / "item_tokens.json").read_text())))
    assert config["vocab_size"] == 4 + item_tokens + (0 if bundled.method == "pruned" else WORDS)


def test_the_engine_that_serves_gives_the_items_and_scores_of_generate(bundled: Bundled) -> None:
    served, oracle = bundled.recommender("auto"), bundled.recommender("generate")
    assert (served.engine_name, oracle.engine_name) == ("beam", "generate")
    for ours, theirs in zip(answers(served), answers(oracle), strict=True):
        assert [item.item_id for item in ours.items] == [item.item_id for item in theirs.items]
        assert [item.score for item in ours.items] == pytest.approx([item.score for item in theirs.items], abs=1e-4)
        assert [item.probability for item in ours.items] == pytest.approx(
            [item.probability for item in theirs.items], abs=1e-4
        )


@pytest.mark.anyio
async def test_over_http_it_answers_what_the_recommender_answers(bundled: Bundled) -> None:
    expected = bundled.recommender("generate")
    known = expected.bundle.catalog.item_ids.to_pylist()
    history = [known[row % len(known)] for row in HISTORIES[1]]
    want = expected.recommend([Request(history, k=5)])[0]

    def load(*_: Any, **__: Any) -> Recommender:
        return bundled.recommender("auto")

    async with serving(load=load) as running:
        reply = await running.client.post("/recommend", json={"history": history, "k": 5, "fields": ["title"]})
        info = (await running.client.get("/info")).json()
    assert reply.status_code == 200
    body = reply.json()
    assert [item["item_id"] for item in body["items"]] == [item.item_id for item in want.items]
    assert [item["score"] for item in body["items"]] == pytest.approx([item.score for item in want.items], abs=1e-4)
    assert {item["source"] for item in body["items"]} == {"model"}
    assert body["bundle"]["name"] == info["bundle"]["name"] == f"{bundled.family}-{bundled.method}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
