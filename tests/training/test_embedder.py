import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from genrec.errors import DataError
from tests.training.bench import TOY, recipe, run_stage, write_csv
from tests.training.test_embed import embedded, textless
from tests.training.test_embed_text import model_path  # noqa: F401  (a fixture)
from training import prepare
from training.embedder import SavedEmbedder
from training.recipe_data import GivenPart


def vectors_of(stage: Path) -> np.ndarray:
    return load_file(stage / "vectors.safetensors")["vectors"]


def items_of(work: Path) -> pa.Table:
    return pq.read_table(work / "prepare" / "items.parquet")


def test_text_parts_are_made_again_as_they_were(tmp_path: Path) -> None:
    stage = embedded(tmp_path, TOY, parts=["tfidf"], tfidf={"weight": 2.0, "dimensions": 8})
    saved = SavedEmbedder.load(stage)
    assert saved.dimensions == 8
    items = items_of(tmp_path)
    np.testing.assert_allclose(saved.embed(items), vectors_of(stage), atol=1e-5)
    # One item alone, and in another order.
    np.testing.assert_allclose(saved.embed(items.take([5])), vectors_of(stage)[5:6], atol=1e-5)


def test_an_encoder_is_asked_again(tmp_path: Path, model_path: Path) -> None:  # noqa: F811
    stage = embedded(tmp_path, TOY, parts=["encoder"], encoder={"model": str(model_path)})
    np.testing.assert_allclose(SavedEmbedder.load(stage).embed(items_of(tmp_path)), vectors_of(stage), atol=1e-4)


def test_the_collaborative_part_of_an_item_nobody_has_touched_is_predicted_here_as_in_the_stage(tmp_path: Path) -> None:
    order = [[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4, 0, 6], [3, 1, 2, 0, 4, 5, 6]]  # item 6 is held out, always
    lines = [f"u{u},i{i},{t}" for u, items in enumerate(order) for t, i in enumerate(items)]
    titles = ["red fox", "red hen", "red dog", "blue fox", "blue hen", "blue dog", "red cat"]
    data = {
        "interactions": {"path": write_csv(tmp_path / "in.csv", "user_id,item_id,timestamp", *lines)},
        "items": {
            "path": write_csv(tmp_path / "items.csv", "item_id,title", *(f"i{i},{t}" for i, t in enumerate(titles)))
        },
    }
    stage = embedded(tmp_path / "work", data, parts=["tfidf", "collaborative"])
    saved = SavedEmbedder.load(stage)
    own = vectors_of(stage)
    again = saved.embed(items_of(tmp_path / "work"))
    np.testing.assert_allclose(again[6], own[6], atol=1e-5)
    text = next(part["dimensions"] for part in saved.parts if part["part"] == "tfidf")
    np.testing.assert_allclose(again[:, :text], own[:, :text], atol=1e-5)
    assert np.abs(again[0, text:] - own[0, text:]).max() > 0.05  # predicted here, its own there
    # The less is known, the nearer to the middle.
    assert np.linalg.norm(own[6, text:]) < 0.9 * np.linalg.norm(own[:6, text:], axis=1).min()
    report = json.loads((stage / "report.json").read_text())
    assert report["collaborative_part_of_new_items"]["items_without_own"] == 1
    assert report["collaborative_part_of_new_items"]["items"] == 6


def test_given_vectors_of_new_items_come_from_their_own_file(tmp_path: Path) -> None:
    ids = items_of_toy(tmp_path)
    rng = np.random.default_rng(0)
    own = rng.normal(size=(len(ids), 3))
    np.save(tmp_path / "v.npy", own)
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n")
    given = {"path": str(tmp_path / "v.npy"), "ids": str(tmp_path / "ids.txt")}
    stage = embedded(tmp_path / "work", TOY, parts=["given"], given=given)
    saved = SavedEmbedder.load(stage)
    np.testing.assert_allclose(saved.embed(pa.table({"item_id": ids[:2]})), vectors_of(stage)[:2], atol=1e-6)
    new = pa.table({"item_id": ["new"]})
    with pytest.raises(DataError, match=r"1 new items have nothing to be embedded by \('new'\)"):
        saved.embed(new)
    np.save(tmp_path / "more.npy", own[:1])
    (tmp_path / "more.txt").write_text("new\n")
    file = GivenPart(path=str(tmp_path / "more.npy"), ids=str(tmp_path / "more.txt"))
    np.testing.assert_allclose(saved.embed(new, file), vectors_of(stage)[:1], atol=1e-6)
    np.save(tmp_path / "more.npy", np.ones((1, 5)))
    with pytest.raises(DataError, match="'given' of the new items has 5 dimensions, that of the others 3"):
        saved.embed(new, file)


def items_of_toy(folder: Path) -> list[str]:
    made = run_stage(prepare.STAGE, recipe(), folder / "toy")
    return pq.read_table(made / "items.parquet")["item_id"].to_pylist()


def test_items_that_nothing_is_known_of_are_named(tmp_path: Path) -> None:
    saved = SavedEmbedder.load(embedded(tmp_path, TOY, parts=["tfidf", "collaborative"], tfidf={"columns": ["title"]}))
    items = pa.table(
        {"item_id": ["a", "b", "c"], "title": [None, "unheardofword", items_of(tmp_path)["title"][0].as_py()]}
    )
    with pytest.raises(DataError, match=r"2 new items .*\('a', 'b'\): no text, no word that the embedder knows"):
        saved.embed(items)
    assert saved.embed(items.take([2])).any()
    with pytest.raises(DataError, match="reads the column 'title'"):
        saved.embed(pa.table({"item_id": ["a"]}))


def test_behaviour_alone_says_nothing_of_a_new_item(tmp_path: Path) -> None:
    saved = SavedEmbedder.load(embedded(tmp_path, TOY, parts=["collaborative"]))
    with pytest.raises(DataError, match=r"nothing to predict the collaborative part .* such as tfidf"):
        saved.embed(items_of(tmp_path))


def test_no_parts_make_vectors_without_dimensions(tmp_path: Path) -> None:
    saved = SavedEmbedder.load(embedded(tmp_path / "work", textless(tmp_path), parts=[]))
    assert saved.embed(items_of(tmp_path / "work")).shape == (8, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"part": "psychic"}, "a part 'psychic', which this version does not know"),
        ({"vocabulary": None}, "does not say how its part 'tfidf' was made"),
        ({"spread": None}, "written by another version"),
        ({"weight": None}, "does not describe the parts"),
    ],
)
def test_an_embedder_of_another_version_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    stage = embedded(tmp_path, TOY, parts=["tfidf"])
    path = stage / "embedder.json"
    described = json.loads(path.read_text())
    (part,) = described["parts"]
    for key, value in change.items():
        if value is None and key != "weight":
            del part[key]
        else:
            part[key] = value
    path.write_text(json.dumps(described))
    with pytest.raises(DataError, match=sentence):
        SavedEmbedder.load(stage).embed(items_of(tmp_path))
    path.write_text("{")
    with pytest.raises(DataError, match="no embedder that can be read"):
        SavedEmbedder.load(stage)
