"""docs/models.md shows a package with a model of one's own: this is that text, trained, merged, bundled and asked."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from genrec.model_plugin import ModelPlugin, installed_plugin
from genrec.models import load_model
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.own_generate import own_generate
from tests.plugin_packages import install_page
from tests.training.bench import RememberingProgress
from tests.training.families import write_base
from tests.training.runs import SHORT
from training.base_model import load_base
from training.corpus import Corpus
from training.examples import Collator
from training.pipeline import run_pipeline
from training.recipe import load_recipe
from training.recipe_model import Model
from training.stages import STAGES

pytestmark = pytest.mark.system

OVERRIDES = (*SHORT, "model.config.model_type=sequel", "model.config.first_token_weight=3.0")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelPlugin]:
    folder = str(install_page(tmp_path_factory.mktemp("site")))
    sys.path.insert(0, folder)
    found = installed_plugin("sequel")
    assert found is not None and "genrec" not in str(sys.modules["sequel"].__file__)
    yield found
    sys.path.remove(folder)


@pytest.fixture(scope="module", params=["lora", "full"])
def work(request: pytest.FixtureRequest, plugin: ModelPlugin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    recipe = load_recipe("tiny-t5", (*OVERRIDES, f"finetune.method={request.param}"))
    run_pipeline(STAGES, recipe, folder, RememberingProgress())
    return folder


def test_what_it_adds_was_trained_and_is_in_the_bundle(work: Path, plugin: ModelPlugin) -> None:
    before, after = (
        load_model(path, "seq2seq").encoder.history_lengths.weight
        for path in (work / "vocabulary/model", work / "seal/bundle/model")
    )
    assert not before.any() and not after[0].any()
    assert after[1:9].abs().sum(dim=1).min() > 0  # histories of up to 8 items
    assert Recommender.load(work / "seal/bundle").bundle.manifest.model_inputs == plugin.inputs


def test_both_engines_answer_as_its_own_generate_does(work: Path, plugin: ModelPlugin) -> None:
    bundle = work / "seal/bundle"
    beam = Recommender.load(bundle)
    items = beam.bundle.catalog.item_ids.to_pylist()
    histories = [items[at : at + 1 + at % 9] for at in range(0, 40, 2)]
    asked = [Request(history, k=10, num_beams=20, exclude_history=False) for history in histories]
    expected = own_generate(bundle, plugin, histories, 10)
    assert beam.engine_name == "beam"
    for recommender in (beam, Recommender.of(beam.bundle, engine="generate")):
        for answer, own in zip(recommender.recommend(asked), expected, strict=True):
            assert [item for item, _ in answer.scored_list] == [item for item, _ in own]
            assert [score for _, score in answer.scored_list] == pytest.approx([score for _, score in own], abs=1e-4)


def test_the_loss_is_its_own_and_the_third_input_is_what_the_page_says(work: Path) -> None:
    recipe = load_recipe("tiny-t5", OVERRIDES)
    corpus = Corpus.load({stage.name: work / stage.name for stage in STAGES}, recipe)
    batch: dict[str, Any] = Collator(corpus.model_inputs)(
        [corpus.validation_examples(20)[index] for index in range(20)]
    )
    lengths = batch["item_position_ids"].amax(dim=1, keepdim=True)
    assert len(lengths.unique()) > 1
    assert torch.equal(batch["history_length_ids"], lengths * batch["attention_mask"])
    model = load_model(work / "merge/model", "seq2seq")
    with torch.no_grad():
        out = model(**batch)
    levels = cross_entropy(out.logits.transpose(1, 2), batch["labels"], reduction="none").mean(dim=0)
    weights = torch.tensor([3.0] + [1.0] * (len(levels) - 1))
    torch.testing.assert_close(out.loss, (levels * weights).sum() / weights.sum())
    assert abs(out.loss - levels.mean()) > 1e-3


def test_a_plain_t5_can_be_read_as_it(plugin: ModelPlugin, tmp_path: Path) -> None:
    path = write_base("t5", tmp_path)
    section = {
        "architecture": "seq2seq",
        "checkpoint": str(path),
        "plugin": "sequel",
        "config": {"first_token_weight": 5},
    }
    model, _ = load_base(Model.model_validate(section))
    assert type(model) is plugin.model_class
    assert model.config.first_token_weight == 5 and not model.encoder.history_lengths.weight.any()
