import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from genrec.errors import DataError, TrainingError
from tests.training.bench import TOY, RememberingProgress, recipe, rows, run_stage, write_csv
from training import embed, prepare
from training.quantize import STAGE, files_read
from training.quantizer import SavedQuantizer
from training.sequences import load_sequences

SMALL = {"parts": ["tfidf"], "tfidf": {"dimensions": 4}}


def quantized(work: Path, progress: RememberingProgress | None = None, **quantize: Any) -> Path:
    made = recipe(TOY, embed=SMALL, quantize=quantize)
    run_stage(prepare.STAGE, made, work)
    run_stage(embed.STAGE, made, work)
    return run_stage(STAGE, made, work, progress)


def codes_of(output: Path) -> np.ndarray:
    table = pq.read_table(output / "semantic_ids.parquet")
    return np.stack([table[name].to_numpy() for name in table.column_names[1:]], axis=1)


def test_the_files_have_the_agreed_columns_and_unique_rows(tmp_path: Path) -> None:
    progress = RememberingProgress()
    output = quantized(tmp_path, progress, codebook_sizes=[4, 4])
    schema = pq.read_schema(output / "semantic_ids.parquet")
    assert schema.names == ["item_id", "code_0", "code_1", "code_2"]
    assert schema.types == [pa.string(), pa.int32(), pa.int32(), pa.int32()]
    codes = codes_of(output)
    assert len(np.unique(codes, axis=0)) == 48
    ids = [row["item_id"] for row in rows(output / "semantic_ids.parquet")]
    assert ids == [row["item_id"] for row in rows(tmp_path / "prepare" / "items.parquet")]
    described = json.loads((output / "quantizer.json").read_text())
    assert described["has_collision_level"]
    assert described["codebook_sizes"] == [4, 4, int(codes[:, 2].max()) + 1 + 4]  # four spare codes
    assert [book.shape[0] for book in load_file(output / "codebooks.safetensors").values()] == [4, 4]
    assert any("a collision level of" in line for line in progress.lines)


def test_the_report_tells_collisions_before_and_after_and_shows_titles(tmp_path: Path) -> None:
    output = quantized(tmp_path, codebook_sizes=[4, 4], spare_codes=0)
    report = json.loads((output / "report.json").read_text())
    assert report["collisions_before"]["items"] > 0
    assert report["collisions_after"] == {"items": 0, "groups": 0, "largest": 1}
    assert [level["size"] for level in report["levels"][:2]] == [4, 4]
    assert sum(report["items_of_first_codes"]["fullest_first"]) == 48
    assert all((output / plot["file"]).is_file() for plot in report["plots"])
    first = report["pairs_that_share_codes"][0]
    assert first["nearest"] > 2 * first["nearest_by_chance"]
    assert first["following"] > first["following_by_chance"]
    assert "number" in report["clusters_of_the_first_code"][0]["titles"][0]
    assert "collision level" in (output / "report.md").read_text()


def test_within_a_collision_popularity_in_training_decides(tmp_path: Path) -> None:
    codes = codes_of(quantized(tmp_path, codebook_sizes=[2]))
    popularity = load_sequences(tmp_path / "prepare").training_counts()
    for code in (0, 1):
        group = np.flatnonzero(codes[:, 0] == code)
        in_order = group[np.argsort(codes[group, 1])]
        assert (np.diff(popularity[in_order]) <= 0).all()


def test_the_same_recipe_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (quantized(tmp_path / name, codebook_sizes=[4, 4]) for name in ("one", "two"))
    files = [file.relative_to(first) for file in first.rglob("*") if file.is_file()]
    assert Path("plots/first_code.png") in files
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_given_codes_that_are_unique_get_no_further_level(tmp_path: Path) -> None:
    ids = [f"{genre}{number:02d}" for genre in ("co", "cr", "dr", "we") for number in range(12)]
    lines = [f"{item},{row // 8},{row % 8}" for row, item in enumerate(ids)]
    path = write_csv(tmp_path / "codes.csv", "item_id,code_0,code_1", *lines)
    output = quantized(tmp_path / "work", method="given", given={"path": path})
    assert codes_of(output).shape == (48, 2)
    assert json.loads((output / "quantizer.json").read_text())["codebook_sizes"] == [6, 8]
    # The file says nothing of items to come; centroids fitted to its codes do.
    assert [len(book) for book in load_file(output / "codebooks.safetensors").values()] == [6, 8]
    assert files_read(recipe(quantize={"method": "given", "given": {"path": path}})) == (Path(path),)


def test_random_codes_become_unique_too(tmp_path: Path) -> None:
    assert len(np.unique(codes_of(quantized(tmp_path, method="random", codebook_sizes=[4, 4])), axis=0)) == 48


@pytest.mark.parametrize(
    "section",
    [
        {"method": "balanced_kmeans", "balanced_kmeans": {"slack": 1.0}},
        {"method": "product"},
        {"method": "rqvae", "rqvae": {"epochs": 40, "hidden": [16], "latent": 8}},
        {"method": "balanced_kmeans", "collisions": "nearest"},
        {"method": "rqvae", "rqvae": {"epochs": 40, "hidden": [16], "latent": 8}, "collisions": "reassign"},
    ],
)
def test_every_method_ends_in_unique_codes_and_what_new_items_need(tmp_path: Path, section: dict[str, Any]) -> None:
    output = quantized(tmp_path, codebook_sizes=[8, 8], **section)
    codes = codes_of(output)
    assert len(np.unique(codes, axis=0)) == 48
    described = json.loads((output / "quantizer.json").read_text())
    assert described["method"] == section["method"]
    assert 0 <= described["share_left_over"] < 1
    assert (codes < described["codebook_sizes"]).all()
    assert SavedQuantizer.load(output).codebooks is not None


def test_a_gate_that_is_not_passed_stops_the_run_and_leaves_its_figures(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"max_collision_share = 0\.1"):
        quantized(tmp_path, codebook_sizes=[4, 4], gates={"max_collision_share": 0.1})
    assert (tmp_path / "quantize" / "report.md").is_file()


def test_vectors_are_needed_for_k_means(tmp_path: Path) -> None:
    made = recipe(TOY, embed={"parts": []})
    for stage in (prepare.STAGE, embed.STAGE):
        run_stage(stage, made, tmp_path)
    with pytest.raises(DataError, match="needs vectors"):
        run_stage(STAGE, made, tmp_path)
    assert files_read(made) == ()


def test_items_without_titles_are_called_by_their_ids(tmp_path: Path) -> None:
    lines = [f"u{u},i{i},{i}" for u in range(3) for i in range(4)]
    path = write_csv(tmp_path / "in.csv", "user_id,item_id,timestamp", *lines)
    made = recipe({"interactions": {"path": path}}, embed={"parts": []}, quantize={"method": "random"})
    for stage in (prepare.STAGE, embed.STAGE):
        run_stage(stage, made, tmp_path / "work")
    report = json.loads((run_stage(STAGE, made, tmp_path / "work") / "report.json").read_text())
    assert report["clusters_of_the_first_code"][0]["titles"][0].startswith("i")


def test_beauty_gets_a_collision_level(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "beauty"
    section = {
        "interactions": {"path": str(folder / "interactions.csv")},
        "items": {"path": str(folder / "items.csv")},
    }
    given = {"path": str(folder / "semantic_ids.csv")}
    made = recipe(section, embed={"parts": []}, quantize={"method": "given", "given": given})
    for stage in (prepare.STAGE, embed.STAGE):
        run_stage(stage, made, tmp_path)
    output = run_stage(STAGE, made, tmp_path)
    codes = codes_of(output)
    assert codes.shape == (12_101, 5)
    assert len(np.unique(codes[:, :4], axis=0)) == 12_088
    assert len(np.unique(codes, axis=0)) == 12_101
    assert json.loads((output / "quantizer.json").read_text())["has_collision_level"]
