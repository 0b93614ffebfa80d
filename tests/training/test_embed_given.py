from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from genrec.errors import DataError
from training.embed_given import given
from training.recipe_data import GivenPart

VECTORS = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
IDS = ["b", "a", "x"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    pl.DataFrame({"item_id": IDS, "vector": VECTORS.tolist()}).write_parquet(tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", VECTORS)
    save_file({"vector": VECTORS}, tmp_path / "v.safetensors")
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
    return tmp_path


@pytest.mark.parametrize("kind", ["parquet", "npy", "safetensors"])
def test_rows_are_put_in_the_order_of_the_items(files: Path, kind: str) -> None:
    ids = None if kind == "parquet" else str(files / "ids.txt")
    part = given(["a", "b", "c"], GivenPart(path=str(files / f"v.{kind}"), ids=ids))
    assert part.vectors.tolist() == [[3, 4], [1, 2], [0, 0]]
    assert part.description["items_without_vector"] == 1


def test_what_does_not_fit_is_refused(files: Path) -> None:
    def refusal(**part: str) -> str:
        with pytest.raises(DataError) as caught:
            given(["a"], GivenPart(**part))  # type: ignore[arg-type]
        return str(caught.value)

    npy, ids = str(files / "v.npy"), str(files / "ids.txt")
    assert "is no file" in refusal(path=str(files / "none.npy"))
    assert "name in embed.given.ids" in refusal(path=npy)
    assert "are read from .parquet" in refusal(path=ids, ids=ids)
    assert "cannot be read" in refusal(path=str(files / "v.safetensors"), ids=ids, vector="other")
    (files / "ids.txt").write_text("a\nb\n")
    assert "shape (3, 2) for 2 ids" in refusal(path=npy, ids=ids)
    (files / "ids.txt").write_text("a\nb\na\n")
    assert "twice" in refusal(path=npy, ids=ids)
    np.save(files / "v.npy", VECTORS * np.nan)
    (files / "ids.txt").write_text("a\nb\nc\n")
    assert "item 'a' has a number not finite" in refusal(path=npy, ids=ids)


def test_pickled_arrays_are_never_read(files: Path) -> None:
    np.save(files / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as vectors"):
        given(["a"], GivenPart(path=str(files / "v.npy"), ids=str(files / "ids.txt")))
