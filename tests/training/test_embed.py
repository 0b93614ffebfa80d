import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from genrec.errors import DataError
from tests.training.bench import recipe, run_stage, write_csv
from training import prepare
from training.embed import STAGE, files_read, join
from training.embed_part import Part, Standard


def embedded(work: Path, prepare_section: dict[str, Any], **embed: Any) -> Path:
    made = recipe(prepare_section, embed=embed)
    run_stage(prepare.STAGE, made, work)
    return run_stage(STAGE, made, work)


def textless(folder: Path) -> dict[str, Any]:
    """Eight items, of which i6 and i7 have no text; i7 is interacted with last only."""
    order = [[0, 1, 2, 6, 3, 7], [1, 2, 6, 4, 5, 7]]
    lines = [f"u{u},i{i},{t}" for u, items in enumerate(order) for t, i in enumerate(items)]
    return {
        "interactions": {"path": write_csv(folder / "in.csv", "user_id,item_id,timestamp", *lines)},
        "items": {
            "path": write_csv(
                folder / "items.csv", "item_id,title", *(f"i{i},{'' if i > 5 else f'Title {i}'}" for i in range(8))
            )
        },
    }


def test_parts_stand_side_by_side_each_spread_by_its_weight_whatever_way_all_of_its_vectors_point() -> None:
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(50, 4)).astype(np.float32)
    one_way = np.concatenate([rng.normal(0, 0.1, size=(50, 3)), np.ones((50, 1))], axis=1).astype(np.float32)
    spread[7] = 0  # has nothing of this part
    parts = {"tfidf": Part(spread, {}), "given": Part(one_way, {})}
    joined = join(
        parts, {name: Standard.of(part.vectors) for name, part in parts.items()}, {"tfidf": 1.0, "given": 0.5}, 50
    )
    squares = (joined**2).sum(axis=0)
    assert squares[:4].sum() / 49 == pytest.approx(1, rel=1e-4)
    assert squares[4:].sum() / 50 == pytest.approx(0.25, rel=1e-4)
    np.testing.assert_allclose(joined[:, 4:].mean(axis=0), 0, atol=1e-6)
    assert not joined[7, :4].any()


def test_the_vectors_are_float32_in_the_order_of_the_items_and_the_same_every_time(tmp_path: Path) -> None:
    sections = {"parts": ["tfidf", "collaborative"], "tfidf": {"dimensions": 8}, "collaborative": {"dimensions": 4}}
    first = embedded(tmp_path / "one", {"dataset": "toy"}, **sections)
    vectors = load_file(first / "vectors.safetensors")["vectors"]
    assert vectors.shape == (48, 12)
    assert vectors.dtype == np.float32
    for columns in (vectors[:, :8], vectors[:, 8:]):
        assert (columns**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)
    second = embedded(tmp_path / "two", {"dataset": "toy"}, **sections)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    described = json.loads((first / "embedder.json").read_text())
    assert [(part["part"], part["dimensions"]) for part in described["parts"]] == [("tfidf", 8), ("collaborative", 4)]


def test_no_parts_give_vectors_without_dimensions(tmp_path: Path) -> None:
    output = embedded(tmp_path, {"dataset": "toy"}, parts=[])
    assert load_file(output / "vectors.safetensors")["vectors"].shape == (48, 0)


def test_an_item_without_text_is_named_with_what_to_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 items have no text to embed \('i6', 'i7'\).*\"collaborative\""):
        embedded(tmp_path / "work", textless(tmp_path))


def test_behaviour_stands_in_for_text_and_the_report_counts_who_has_neither(tmp_path: Path) -> None:
    output = embedded(tmp_path / "work", textless(tmp_path), parts=["tfidf", "collaborative"])
    vectors = load_file(output / "vectors.safetensors")["vectors"]
    assert vectors[6].any()
    assert not vectors[7].any()
    report = json.loads((output / "report.json").read_text())
    assert report["notes"][0] == "Items without any vector, which all get the same codes: 1."
    assert report["parts"][0]["items_with_nothing"] == 2


def test_an_item_without_a_given_vector_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((1, 2)))
    (tmp_path / "ids.txt").write_text("co00\n")
    given = {"path": str(tmp_path / "v.npy"), "ids": str(tmp_path / "ids.txt")}
    with pytest.raises(DataError, match="47 items have no vector in the given file"):
        embedded(tmp_path / "work", {"dataset": "toy"}, parts=["given"], given=given)
    assert files_read(recipe(embed={"parts": ["given"], "given": given})) == [Path(given["path"]), Path(given["ids"])]


def test_a_local_encoder_is_part_of_the_key_and_a_hub_id_is_not(tmp_path: Path) -> None:
    local = recipe(embed={"parts": ["encoder"], "encoder": {"model": str(tmp_path)}})
    assert files_read(local) == [tmp_path]
    assert files_read(recipe(embed={"parts": ["encoder"], "encoder": {"model": "some/model"}})) == []
