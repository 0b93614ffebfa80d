"""A run that goes on from a bundle: who keeps which semantic ID."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.bundle import load_bundle
from genrec.errors import DataError
from genrec.models import load_model
from genrec.semantic_id import SemanticId
from tests.fakes import TinyShape, tiny_bundle
from tests.training.bench import RememberingProgress
from tests.training.lifecycle import GONE, NEW, TWIN, Later, month_later
from tests.training.runs import Run
from training import assemble, embed, prepare, quantize
from training.base import BaseBundle
from training.newcomers import codes_of
from training.recipe import Recipe, load_recipe
from training.stage import StageContext

CAUSAL = pytest.mark.parametrize("architecture", ["causal"], indirect=True)


def ids_of(bundle: Path) -> dict[str, SemanticId]:
    catalog = load_bundle(bundle).catalog
    return {item: catalog.semantic_id(row) for row, item in enumerate(catalog.item_ids.to_pylist())}


def test_items_keep_their_semantic_ids_and_new_ones_get_others(finished: Run, gone_on: Later) -> None:
    before, after = ids_of(finished.bundle), ids_of(gone_on.bundle)
    assert set(after) == (set(before) | set(NEW)) - {GONE}
    assert {item: after[item] for item in before if item != GONE} == {
        item: codes for item, codes in before.items() if item != GONE
    }
    new = [after[item] for item in NEW]
    assert len(set(new)) == len(NEW)
    assert not set(new) & set(before.values())


def test_twins_in_text_share_all_but_the_collision_level(gone_on: Later) -> None:
    after = ids_of(gone_on.bundle)
    assert after[NEW[1]][:-1] == after[TWIN][:-1]


def test_the_id_of_an_item_that_left_stays_reserved_and_it_gets_it_back(
    finished: Run, gone_on: Later, tmp_path: Path
) -> None:
    before = ids_of(finished.bundle)
    retired = pq.read_table(gone_on.bundle / "quantizer" / "retired.parquet").to_pylist()
    assert [(row.pop("item_id"), tuple(row.values())) for row in retired] == [(GONE, before[GONE])]
    base = BaseBundle.open(gone_on.bundle)
    assert GONE in base.published.item_ids
    # the data of the first run, which have the item, and not the new ones
    again = stages_on(finished, base, tmp_path)
    assert again[GONE] == before[GONE]
    gone = {row["item_id"] for row in pq.read_table(tmp_path / "quantize" / "retired.parquet").to_pylist()}
    assert gone == set(NEW)


def stages_on(run: Run, base: BaseBundle, work: Path, *overrides: str) -> dict[str, SemanticId]:
    """Embed and quantize the items of a run that goes on from a bundle."""
    recipe = run.recipe(f'base.bundle="{base.path}"', *overrides)
    if not (work / "prepare").is_dir():
        shutil.copytree(run.work / "prepare", work / "prepare")
    for stage in (embed.STAGE, quantize.STAGE):
        (work / stage.name).mkdir()
        inputs = {name: work / name for name in stage.needs}
        stage.run(StageContext(recipe, inputs, work / stage.name, RememberingProgress()))
    rows = pq.read_table(work / "quantize" / "semantic_ids.parquet").to_pylist()
    return {row.pop("item_id"): tuple(row.values()) for row in rows}


def test_spare_codes_are_there_again_afterwards(finished: Run, gone_on: Later) -> None:
    """The twins took codes of the collision level; as many as the recipe asks for are free above what is used."""
    base = BaseBundle.open(finished.bundle)
    sizes = load_bundle(gone_on.bundle).manifest.codebook_sizes
    assert sizes[:-1] == base.manifest.codebook_sizes[:-1]
    assert sizes[-1] >= base.manifest.codebook_sizes[-1]


def test_a_level_grows_where_all_its_codes_are_taken(finished: Run) -> None:
    base = BaseBundle.open(finished.bundle)
    dimensions = json.loads((finished.bundle / "quantizer" / "embedder.json").read_text())["dimensions"]
    alike = np.ones((40, dimensions), dtype=np.float32)
    codes, sizes = codes_of(alike, base, room=60)
    assert (codes[:, :-1] == codes[0, :-1]).all()  # none had to go to another prefix
    last = base.manifest.codebook_sizes[-1]
    assert sizes[-1] == last + 60 > codes[:, -1].max() >= last
    without_room, kept = codes_of(alike, base, room=0)
    assert kept == base.manifest.codebook_sizes
    assert len(np.unique(without_room[:, :-1], axis=0)) > 1
    assert without_room[:, -1].max() < last


def test_items_of_other_data_are_refused(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.work / "prepare", tmp_path / "prepare")
    file = tmp_path / "prepare" / "items.parquet"
    items = pq.read_table(file)
    ids = [f"x{number}" if number % 2 else item for number, item in enumerate(items["item_id"].to_pylist())]
    pq.write_table(items.set_column(0, "item_id", pa.array(["x", *ids[1:]])), file)
    with pytest.raises(DataError, match="made of other data"):
        stages_on(finished, BaseBundle.open(finished.bundle), tmp_path)


def test_a_bundle_without_a_quantizer_can_go_on_as_long_as_nothing_is_new(tmp_path: Path) -> None:
    base = BaseBundle.open(tiny_bundle(tmp_path / "tiny", TinyShape()))
    recipe = load_recipe("tiny-causal", [f'base.bundle="{base.path}"'])

    def run(item_ids: list[str], name: str) -> dict[str, Any]:
        work = tmp_path / name
        (work / "prepare").mkdir(parents=True)
        pq.write_table(pa.table({"item_id": item_ids}), work / "prepare" / "items.parquet")
        for stage in (embed.STAGE, quantize.STAGE):
            (work / stage.name).mkdir()
            inputs = {need: work / need for need in stage.needs}
            stage.run(StageContext(recipe, inputs, work / stage.name, RememberingProgress()))
        return json.loads((work / "quantize" / "quantizer.json").read_text())

    described = run(base.catalog.item_ids.to_pylist()[3:], "fewer")
    assert tuple(described["codebook_sizes"]) == base.manifest.codebook_sizes
    with pytest.raises(DataError, match="no embedder"):
        run([*base.catalog.item_ids.to_pylist(), "new"], "more")


def test_weights_begin_where_the_bundle_left_them_and_pretraining_is_passed_over(
    finished: Run, gone_on: Later, tmp_path: Path
) -> None:
    before, after = load_bundle(finished.bundle).model.state_dict(), gone_on.work / "pretrain" / "model"
    assert not (gone_on.work / "pretrain" / "fit.json").exists()
    assert any("base bundle's weights pass" in line for line in gone_on.lines)
    began = load_model(after, finished.architecture).state_dict()
    assert set(began) == set(before)
    for name, tensor in before.items():
        rows = tensor.shape[0]  # a level that grew has more rows of embeddings
        assert (began[name][:rows] == tensor).all(), name
    assert load_bundle(gone_on.bundle).manifest.provenance["base_bundle"]["version"] == (
        load_bundle(finished.bundle).manifest.version
    )


@CAUSAL
def test_a_second_time_nothing_is_done_and_another_base_runs_what_reads_it(
    finished: Run, gone_on: Later, refitted: Later, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(gone_on.work, work)
    same = Later(gone_on.recipe, work, [])
    assert same.again() == []
    other = gone_on.recipe.model_copy(
        update={"base": gone_on.recipe.base.model_copy(update={"bundle": str(refitted.bundle)})}
    )
    assert Later(other, work, []).again(until="quantize") == ["prepare", "embed", "quantize"]


@CAUSAL
def test_going_on_from_what_has_seen_test_data_measures_only_what_is_newer(
    finished: Run, refitted: Later, tmp_path: Path
) -> None:
    base = f'base.bundle="{refitted.bundle}"'
    later = finished.recipe(*month_later(finished, tmp_path / "data"), base)
    rows = prepared(later, tmp_path / "later")
    held_out = [row["timestamp"] for row in rows if row["split"] != "train"]
    until = load_bundle(refitted.bundle).manifest.provenance["seen_until_ms"]
    assert held_out and min(held_out) > until
    assert max(row["timestamp"] for row in rows if row["split"] == "train") >= until
    assert assemble.origin(later)["seen_until_ms"] == until
    with pytest.raises(DataError, match="nothing to test on"):
        prepared(finished.recipe(base), tmp_path / "same-data")


def prepared(recipe: Recipe, output: Path) -> list[dict[str, Any]]:
    output.mkdir()
    prepare.STAGE.run(StageContext(recipe, {}, output, RememberingProgress()))
    return pq.read_table(output / "interactions.parquet").to_pylist()
