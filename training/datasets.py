"""Data sets that a recipe can name: `ml-100k`, fetched through pip, and `toy`, made up on the spot.

Knows where they come from and what their columns mean. Nothing of them is part of this package.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from genrec.bundle.layout import sha256_of, sync_tree
from genrec.errors import DataError
from training.recipe_data import InteractionsSource, ItemsSource, MetadataColumn
from training.sources import FILE, ROW, Source, reading

# MovieLens-100K travels inside RecBole's wheel. GroupLens forbids passing it on, so each user fetches their own.
ML_100K_WHEEL = "recbole==1.2.1"
ML_100K_FOLDER = "recbole/dataset_example/ml-100k"
ML_100K_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
FETCH_TIMEOUT_S = 300

TITLED_METADATA = {
    "title": MetadataColumn(),
    "year": MetadataColumn(type="integer"),
    "genres": MetadataColumn(type="list"),
}


@dataclass(frozen=True, slots=True)
class RawData:
    """Tables to prepare, and what their columns are called.

    Attributes:
        interactions: The table.
        interaction_columns: Its columns.
        items: The table; None if an item is only an id.
        item_columns: Its columns.
    """

    interactions: Source
    interaction_columns: InteractionsSource
    items: Source | None
    item_columns: ItemsSource | None


def named(name: str, cache: Path) -> RawData:
    """A data set by name.

    Args:
        name: ``ml-100k`` or ``toy``.
        cache: Where downloads stay.

    Raises:
        DataError: It cannot be fetched, or is not what it was.
    """
    return ml_100k(fetch_ml_100k(cache)) if name == "ml-100k" else toy()


def fetch_ml_100k(cache: Path) -> Path:
    """The folder with the three MovieLens-100K files, fetched once and checked every time.

    Raises:
        DataError: pip cannot fetch the wheel, or a file has another checksum.
    """
    folder = cache / "ml-100k"
    if _intact(folder):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as scratch:
        wheel = _download(ML_100K_WHEEL, Path(scratch))
        unpacked = Path(scratch) / "ml-100k"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in ML_100K_SHA256:
                (unpacked / name).write_bytes(archive.read(f"{ML_100K_FOLDER}/{name}"))
        if not _intact(unpacked):
            raise DataError(f"{ML_100K_WHEEL} holds other MovieLens-100K files than expected; check your package index")
        sync_tree(unpacked)
        if folder.exists():
            folder.rename(Path(scratch) / "damaged")
        unpacked.rename(folder)
    return folder


def ml_100k(folder: Path) -> RawData:
    """MovieLens-100K: ratings, and films with title, year and genres.

    Titles read as people write them: "Empire Strikes Back, The" of 1980 is "The Empire Strikes Back (1980)".
    """
    ratings = _typed_table(folder / "ml-100k.inter")
    films = _typed_table(folder / "ml-100k.item")
    title = pl.col("movie_title").replace("unkonwn", "unknown")  # sic, in RecBole's file
    title = title.str.replace(r"^(.+), (The|A|An|Le|La|Les|Il|El|Der|Die|Das)$", "$2 $1")
    year = pl.when(pl.col("release_year").str.contains(r"^\d{4}$")).then("release_year")
    titled = pl.concat_str(title, pl.format(" ({})", year).fill_null(""))
    genres = pl.col("class").replace("unknown", "").str.split(" ")
    films = films.select(ROW, FILE, "item_id", title=titled, year=year, genres=genres)
    return _raw_data(ratings, films, "ml-100k", rating="rating")


def toy(users: int = 120, genres: int = 4, films_a_genre: int = 12) -> RawData:
    """A small made-up data set, mostly each item followed by its successor: for tests and first steps."""
    rng = np.random.default_rng(20_240_229)
    names = ("Comedy", "Crime", "Drama", "Western", "Romance", "Horror")[:genres]
    items = [f"{genre[:2].lower()}{number:02d}" for genre in names for number in range(films_a_genre)]
    rows: list[tuple[str, str, int]] = []
    for user in range(users):
        item = int(rng.integers(len(items)))
        for step in range(int(rng.integers(5, 16))):
            rows.append((f"u{user:03d}", items[item], 1_700_000_000 + step * 86_400 + user * 60))
            jump = rng.random() < 0.2
            item = int(rng.integers(len(items))) if jump else (item + 1) % len(items)
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    films = pl.DataFrame({"item_id": items}).with_columns(
        title=pl.Series(f"{genre} number {number + 1}" for genre in names for number in range(films_a_genre)),
        year=pl.Series(1980 + number for _ in names for number in range(films_a_genre)),
        genres=pl.Series([genre] for genre in names for _ in range(films_a_genre)),
    )
    tables = [
        table.lazy().with_row_index(ROW).with_columns(pl.lit("toy").alias(FILE)) for table in (interactions, films)
    ]
    return _raw_data(tables[0], tables[1], "toy", rating=None)


def _raw_data(interactions: pl.LazyFrame, items: pl.LazyFrame, name: str, rating: str | None) -> RawData:
    return RawData(
        interactions=Source(interactions, (), is_text=False, path=name),
        interaction_columns=InteractionsSource(path=name, rating=rating, time_unit="seconds"),
        items=Source(items, (), is_text=False, path=name),
        item_columns=ItemsSource(path=name, metadata=TITLED_METADATA),
    )


def _typed_table(path: Path) -> pl.LazyFrame:
    """A RecBole table: tab-separated, names such as ``item_id:token``, no quoting."""
    with reading(str(path)):
        table = pl.scan_csv(
            path, separator="\t", quote_char=None, infer_schema=False, row_index_name=ROW, include_file_paths=FILE
        )
        return table.rename({name: name.partition(":")[0] for name in table.collect_schema()})


def _intact(folder: Path, expected: Mapping[str, str] = ML_100K_SHA256) -> bool:
    return all((folder / name).is_file() and sha256_of(folder / name) == known for name, known in expected.items())


def _download(requirement: str, folder: Path) -> Path:
    """Fetch one wheel with the pip and the package index of this Python."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    advice = "check the network and pip's package index, or give your own data in [prepare.interactions]"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)  # noqa: S603  (fixed words)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip did not fetch {requirement} within {FETCH_TIMEOUT_S} s; {advice}") from error
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise DataError(f"pip could not fetch {requirement} ({last}); {advice}")
    return next(folder.glob("*.whl"))
