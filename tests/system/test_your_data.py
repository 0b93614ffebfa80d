"""A stranger's files become a bundle that answers, by docs/your-data.md alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.system.oracle import SHARED
from tests.system.server import served

ROOT = Path(__file__).parents[2]
MOVIES = SHARED / "data" / "movietweetings"
NUM_USERS = 400

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def shell(script: str, folder: Path) -> str:
    """Run what a reader would paste, where the checkout's `genrec` is on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def page_blocks() -> list[str]:
    page = (ROOT / "docs/your-data.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_page_can_be_pasted_and_answers(tmp_path: Path) -> None:
    (tmp_path / "training").symlink_to(ROOT / "training")
    said = [shell(block, tmp_path) for block in page_blocks()]
    assert "6 users" in said[-1] or "verified" in said[-1]
    with served(tmp_path / "bundles/films", log=tmp_path / "log") as client:
        answer = client.post("/recommend", json={"history": ["f06", "f08"], "k": 3}).json()
    assert len(answer["items"]) == 3
    assert not {"f06", "f08"} & {item["item_id"] for item in answer["items"]}
    assert all(set(item["metadata"]) == {"title", "year", "genres"} for item in answer["items"])


@pytest.mark.soak
@pytest.mark.skipif(not MOVIES.is_dir(), reason=f"needs the data set in {MOVIES}, no part of this repository")
def test_movietweetings_under_foreign_names_becomes_a_bundle_that_answers(tmp_path: Path) -> None:
    """The recipe is a copy of `own-data` in which a user changed paths, columns and sizes."""
    ratings = pl.read_csv(MOVIES / "interactions.csv", infer_schema=False)
    counts = ratings.group_by("user_id").len().sort(["len", "user_id"], descending=[True, False])
    some = ratings.filter(pl.col("user_id").is_in(counts["user_id"].head(NUM_USERS).implode()))
    some.rename({"user_id": "Kunde", "item_id": "Film-Nr", "rating": "Sterne", "timestamp": "Zeit"}).write_csv(
        tmp_path / "Bewertungen.csv", separator=";"
    )
    films = pl.read_csv(MOVIES / "items.csv", infer_schema=False)
    films.rename({"item_id": "IMDb", "title": "Titel", "year": "Jahr", "genres": "Sparten"}).write_parquet(
        tmp_path / "Filme.parquet"
    )
    recipe = (ROOT / "training/recipes/own-data.toml").read_text(encoding="utf-8")
    for old, new in {
        'name = "own-data"': 'name = "filme"',
        'path = "data/interactions.csv"': 'path = "Bewertungen.csv"',
        'user = "user_id"': 'user = "Kunde"\nseparator = ";"\nrating = "Sterne"',
        'item = "item_id"\ntime = "timestamp"': 'item = "Film-Nr"\ntime = "Zeit"',
        'path = "data/items.csv"\nitem = "item_id"': 'path = "Filme.parquet"\nitem = "IMDb"',
        'title = "string"': 'title = { column = "Titel" }',
        'year = "integer"': 'year = { type = "integer", column = "Jahr" }',
        'genres = { type = "list", separator': 'genres = { type = "list", column = "Sparten", separator',
        "hidden_size = 128\nintermediate_size = 352": "hidden_size = 32\nintermediate_size = 64",
        "max_history_items = 50": "max_history_items = 20",
        "num_train_epochs = 20": "num_train_epochs = 2",
        "num_train_epochs = 3": "num_train_epochs = 1",
    }.items():
        assert old in recipe, old
        recipe = recipe.replace(old, new, 1)
    (tmp_path / "filme.toml").write_text(recipe, encoding="utf-8")
    print(shell("genrec train filme.toml --output bundles/filme --set evaluate.num_users=50", tmp_path))
    report = shell("genrec inspect bundles/filme --verify", tmp_path)
    assert "title (string), year (integer), genres (list of strings)" in report
    history = some.filter(pl.col("user_id") == counts["user_id"][0]).sort("timestamp")["item_id"].to_list()
    with served(tmp_path / "bundles/filme", log=tmp_path / "log") as client:
        answer = client.post("/recommend", json={"history": history, "k": 10}).json()
        print([item["metadata"]["title"] for item in answer["items"]])
    titles = dict(zip(films["item_id"], films["title"], strict=True))
    assert len(answer["items"]) == 10
    assert all(item["source"] == "model" for item in answer["items"])
    assert all(item["metadata"]["title"] == titles[item["item_id"]] for item in answer["items"])
    assert answer["history_used"] == 20 and answer["truncated"]
