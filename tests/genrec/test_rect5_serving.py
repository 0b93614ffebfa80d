"""A bundle of RecT5 is served as any other: every way to ask it gives what its own `generate` gives, inputs and all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import T5ForConditionalGeneration

from genrec import model_plugin
from genrec.bundle import layout, load_bundle
from genrec.decoding import decoders
from genrec.decoding.t5 import T5Decoder
from genrec.errors import BundleError
from genrec.model_inputs import ModelInputs
from genrec.recommender import Recommender
from genrec.rect5 import PLUGIN, RecT5ForConditionalGeneration
from genrec.requests import Request, ScoreRequest
from genrec.warm_up import warm_up
from tests import oracle
from tests.fakes import reseal
from tests.rect5_bundle import rect5_bundle
from tests.service.scoring import rows_of, score, some_rows, write_rows

ALL = [f"i{number}" for number in range(40)]
HISTORIES = [["i1"], ["i4", "unknown", "i2"], ALL[:8], ["i9", "i8", "i7", "i6"], ["i30", "i31"]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rect5_bundle(tmp_path_factory.mktemp("rect5"))


@pytest.fixture(scope="module")
def beam(path: Path) -> Recommender:
    return Recommender.load(path, device="cpu")


@pytest.fixture(scope="module")
def generate(beam: Recommender) -> Recommender:
    return Recommender.of(beam.bundle, engine="generate")


@pytest.fixture(scope="module", params=["beam", "generate"])
def asked(request: pytest.FixtureRequest) -> Recommender:
    return request.getfixturevalue(request.param)


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(path, tmp_path / "tiny"))


def test_auto_is_our_engine_and_its_golden_answers_were_made_by_generate(beam: Recommender) -> None:
    assert beam.engine_name == "beam"
    assert beam.bundle.model_inputs.names == PLUGIN.inputs == beam.bundle.manifest.model_inputs


def test_both_engines_give_the_same_items_and_scores(beam: Recommender, generate: Recommender) -> None:
    requests = [Request(history, k=6, exclude_history=place % 2 == 0) for place, history in enumerate(HISTORIES)]
    for found, expected in zip(beam.recommend(requests), generate.recommend(requests), strict=True):
        assert [item.item_id for item in found.items] == [item.item_id for item in expected.items]
        for item, twin in zip(found.items, expected.items, strict=True):
            assert item.score == pytest.approx(twin.score, abs=1e-4)
            assert item.probability == pytest.approx(twin.probability, rel=1e-3)


def test_an_answer_does_not_depend_on_what_it_is_batched_with(asked: Recommender) -> None:
    requests = [Request(history, k=6) for history in HISTORIES]
    for alone, together in zip(
        map(asked.recommend, [[one] for one in requests]), asked.recommend(requests), strict=True
    ):
        assert [item.item_id for item in alone[0].items] == [item.item_id for item in together.items]
        assert [item.score for item in alone[0].items] == pytest.approx(
            [item.score for item in together.items], abs=1e-5
        )


def test_the_whole_catalog_is_scored_as_brute_force_scores_it(asked: Recommender) -> None:
    history = ["i4", "i2", "i11"]
    expected = oracle.score_all(asked.bundle, history)
    named = asked.score(ScoreRequest(history, ALL))
    assert {item.item_id: item.score for item in named.items} == pytest.approx(expected, abs=1e-4)
    [found] = asked.recommend([Request(history, k=40, num_beams=50, exclude_history=False)])
    assert {item.item_id: item.score for item in found.items} == pytest.approx(expected, abs=1e-4)
    likelihoods = oracle.constrained_probabilities(asked.bundle, history, set())
    assert {item.item_id: item.probability for item in named.items} == pytest.approx(likelihoods, abs=1e-5)


def test_the_inputs_decide_what_is_answered(beam: Recommender) -> None:
    def nothing(ids: torch.Tensor, mask: torch.Tensor, levels: object) -> dict[str, torch.Tensor]:
        return dict.fromkeys(PLUGIN.inputs, torch.zeros_like(ids))

    blank = ModelInputs(PLUGIN.inputs, nothing, beam.bundle.model_inputs.levels)
    for engine in ("beam", "generate"):
        blind = Recommender.of(replace(beam.bundle, model_inputs=blank), engine=engine)
        for history in HISTORIES:
            seen, unseen = (one.score(ScoreRequest(history, ALL)) for one in (beam, blind))
            moved = np.abs([a.score - b.score for a, b in zip(seen.items, unseen.items, strict=True)])
            assert moved.max() > 0.05


def test_an_explained_answer_is_the_answer(asked: Recommender) -> None:
    for history in HISTORIES:
        told = asked.explain(Request(history, k=4))
        [plain] = asked.recommend([Request(history, k=4)])
        assert [item.item_id for item in told.items] == [item.item_id for item in plain.items]
        assert [item.score for item in told.items] == pytest.approx([item.score for item in plain.items], abs=1e-4)
        assert told.explanation is not None


def test_golden_answers_are_rescored_in_a_shorter_dtype(path: Path) -> None:
    assert Recommender.load(path, device="cpu", dtype="bfloat16").bundle.dtype == "bfloat16"


def test_it_is_warmed_up_and_scores_files(beam: Recommender, path: Path, tmp_path: Path) -> None:
    warm_up(beam, 30)
    source = write_rows(tmp_path / "rows.jsonl", some_rows(6))
    assert score(path, source, tmp_path / "out", "--k", "4", "--device", "cpu") == 0
    answers = beam.recommend([Request(row["history"], k=4) for row in some_rows(6)])
    for row, answer in zip(rows_of(tmp_path / "out"), answers, strict=True):
        assert [item["item_id"] for item in row["items"]] == [item.item_id for item in answer.items]


class Hotter(RecT5ForConditionalGeneration):
    """A subclass that does something after the decoder, which our engine does not see."""

    def forward(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 1.1
        return out


def test_a_subclass_that_our_engine_reads_otherwise_than_it_is_gets_generate(beam: Recommender) -> None:
    bundle = beam.bundle
    levels = [torch.tensor(sorted(ids)) for ids in bundle.manifest.item_token_ids]

    def read(model: object) -> object:
        return decoders.decoder_of(model, (0,), levels, 60, bundle.model_inputs)  # type: ignore[arg-type]

    hotter = Hotter(bundle.model.config).eval()
    hotter.load_state_dict(bundle.model.state_dict())
    assert isinstance(read(bundle.model), T5Decoder)
    assert read(hotter) is None
    hotter.encoder.forward = None  # type: ignore[assignment]
    assert read(hotter) is None


def test_a_bundle_says_which_inputs_its_model_takes(copy: Path) -> None:
    reseal(copy, model_inputs=["item_position_ids"])
    wanted = (
        r"takes the extra inputs \['item_position_ids'\], but the installed 'rect5' fills \['item_position_ids', 'm"
    )
    with pytest.raises(BundleError, match=wanted):
        load_bundle(copy)


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_plugin, "_installed", {})
    monkeypatch.setattr(model_plugin, "entry_points", lambda **_: EntryPoints())


@pytest.mark.usefixtures("uninstalled")
@pytest.mark.parametrize("open_it", [load_bundle, Recommender.load])
def test_without_its_plugin_a_bundle_is_refused_with_the_name_and_the_mend(
    path: Path, open_it: Callable[[Path], object]
) -> None:
    wanted = r"in model/ cannot be loaded: model type 'rect5' is of neither .* \(installed: none\); install the package"
    with pytest.raises(BundleError, match=wanted):
        open_it(path)


@pytest.mark.parametrize("read_as", ["t5", "rect5"])
def test_weights_and_model_type_go_together(copy: Path, read_as: str) -> None:
    """As plain T5 the embeddings would be left out; a T5 as RecT5 lacks them."""
    config = copy / layout.MODEL / "config.json"
    if read_as == "rect5":
        T5ForConditionalGeneration.from_pretrained(copy / layout.MODEL).save_pretrained(copy / layout.MODEL)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": read_as}))
    reseal(copy)
    told = "holds the unexpected" if read_as == "t5" else "lacks"
    with pytest.raises(BundleError, match=f"{told} weight 'encoder.item_positions.weight' and 1 more"):
        load_bundle(copy)


def test_an_encoder_that_would_swallow_an_input_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swallowing = replace(PLUGIN, inputs=(*PLUGIN.inputs, "ages"))
    monkeypatch.setitem(model_plugin._installed, "rect5", swallowing)
    with pytest.raises(
        BundleError, match="encoder of RecT5ForConditionalGeneration has no argument 'ages' in its forward"
    ):
        load_bundle(path)
