"""Item vectors made elsewhere: Parquet, NumPy or safetensors.

Knows those three files. No pickle is ever read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from genrec.errors import DataError, one_line
from training.embed_part import FloatArray, Part
from training.recipe_data import GivenPart


def given(item_ids: Sequence[str], part: GivenPart) -> Part:
    """The vectors of a file, in the order of `item_ids`; a zero row for an item that the file lacks.

    Raises:
        DataError: The file is absent or broken, its ids and rows disagree, or a number is not finite.
    """
    path = Path(part.path)
    if not path.is_file():
        raise DataError(f"embed.given.path = {part.path!r} is no file (relative paths are read from {Path.cwd()})")
    try:
        ids, vectors = _read(path, part)
    except (OSError, ValueError, KeyError, pa.ArrowException, SafetensorError) as error:
        raise DataError(f"{part.path} cannot be read as vectors: {one_line(error)}") from error
    if vectors.ndim != 2 or len(vectors) != len(ids) or not vectors.shape[1]:
        raise DataError(f"{part.path} holds vectors of shape {vectors.shape} for {len(ids):,} ids; give one row an id")
    rows = {item: row for row, item in enumerate(ids)}
    if len(rows) < len(ids):
        raise DataError(f"{part.path}: an item id occurs twice; keep one vector an item")
    places = [rows.get(item, -1) for item in item_ids]
    ordered = np.zeros((len(item_ids), vectors.shape[1]), dtype=np.float32)
    found = np.array(places) >= 0
    ordered[found] = vectors[np.array(places)[found]]
    broken = ~np.isfinite(ordered).all(axis=1)
    if broken.any():
        raise DataError(f"{part.path}: the vector of item {item_ids[int(broken.argmax())]!r} has a number not finite")
    return Part(ordered, {**part.model_dump(exclude={"weight"}), "items_without_vector": int((~found).sum())})


def _read(path: Path, part: GivenPart) -> tuple[list[str], FloatArray]:
    if path.suffix == ".parquet":
        table = pq.read_table(path, columns=[part.item, part.vector])
        vectors = [np.asarray(vector, dtype=np.float32) for vector in table[part.vector].to_pylist()]
        return [str(item) for item in table[part.item].to_pylist()], np.stack(vectors)
    if part.ids is None:
        raise DataError(f"{part.path} has no item ids; name in embed.given.ids a text file with one id a line")
    ids = Path(part.ids).read_text(encoding="utf-8").splitlines()
    if path.suffix == ".npy":
        return ids, np.load(path, allow_pickle=False).astype(np.float32)
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            return ids, file.get_tensor(part.vector).astype(np.float32)
    raise DataError(f"{part.path}: vectors are read from .parquet, .npy and .safetensors")
