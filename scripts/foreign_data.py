"""A user's own data, as docker_test.sh needs it: part of MovieTweetings under other names, and a recipe made for it.

Usage: python3 foreign_data.py MOVIETWEETINGS_FOLDER RECIPE_TO_COPY TARGET_FOLDER

The recipe is what a user is told to make: a copy of own-data.toml with other paths and column names. It is made small
besides, so that training takes seconds. Needs nothing but Python's standard library.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

USERS = 300
RATINGS_A_USER = 20
"""Users with fewer are left out, so that few users leave enough films behind `item_core`."""

EDITS = {
    'name = "own-data"': 'name = "films"',
    'path = "data/interactions.csv"': 'path = "data/ratings.csv"',
    'user = "user_id"': 'user = "viewer"',
    'item = "item_id"\ntime = "timestamp"': 'item = "film"\ntime = "seen at"',
    '# separator = ","\n\n[prepare.items]': 'separator = ";"\n\n[prepare.items]',
    'path = "data/items.csv"\nitem = "item_id"': 'path = "data/films.csv"\nitem = "code"',
    'title = "string"': 'title = { type = "string", column = "name" }',
    'year = "integer"': 'year = { type = "integer", column = "released" }',
    'separator = "|" }': 'column = "kinds", separator = "|" }',
    "codebook_sizes = [64, 64]": "codebook_sizes = [32, 32]",
    "hidden_size = 128": "hidden_size = 64",
    "num_train_epochs = 20": "num_train_epochs = 2",
    "num_train_epochs = 3": "num_train_epochs = 1",
    "# num_users = 50000 ": "num_users = 50 ",
}


def main(source: Path, recipe: Path, target: Path) -> None:
    """Write `ratings.csv`, `films.csv` and `my-recipe.toml` into the target."""
    with (source / "interactions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["user_id"] for row in rows)
    chosen = set([user for user, count in counts.items() if count >= RATINGS_A_USER][:USERS])
    with (target / "ratings.csv").open("w", encoding="utf-8", newline="") as file:
        ratings = csv.writer(file, delimiter=";")
        ratings.writerow(["viewer", "film", "stars", "seen at"])
        ratings.writerows(
            [row["user_id"], row["item_id"], row["rating"], row["timestamp"]]
            for row in rows
            if row["user_id"] in chosen
        )
    with (
        (source / "items.csv").open(encoding="utf-8", newline="") as file,
        (target / "films.csv").open("w", encoding="utf-8", newline="") as out,
    ):
        films = csv.writer(out)
        films.writerow(["code", "name", "released", "kinds"])
        films.writerows([row["item_id"], row["title"], row["year"], row["genres"]] for row in csv.DictReader(file))
    (target / "my-recipe.toml").write_text(edited(recipe.read_text(encoding="utf-8")), encoding="utf-8")


def edited(text: str) -> str:
    """The recipe after the edits, each of which must find its place once."""
    for old, new in EDITS.items():
        if text.count(old) != 1:
            sys.exit(f"the recipe has {old!r} {text.count(old)} times, expected once; mend EDITS in {__file__}")
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
