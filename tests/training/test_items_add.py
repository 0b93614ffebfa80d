"""More items in a bundle: what stays, what the new ones get, and what of a file is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.bundle import layout, load_bundle
from genrec.errors import BundleError, DataError, InputError
from genrec.filters import Filter
from genrec.golden import GoldenAnswer
from genrec.recommender import Recommender
from genrec.requests import Request, ScoreRequest
from tests.fakes import TinyShape, reseal, tiny_bundle
from tests.training.bench import RememberingProgress
from tests.training.lifecycle import GONE, NEW, Later, new_items
from tests.training.runs import Run
from training import items_add
from training.base import BaseBundle
from training.items_add import add_items, prove_unchanged


def add(bundle: Path, items: Path, output: Path, *, replace: bool = False, vectors: Path | None = None) -> list[str]:
    progress = RememberingProgress()
    add_items(
        bundle, items, output, list_separator="|", vectors=vectors, replace=replace, progress=progress
    )  # fmt: skip
    return progress.lines


def write(folder: Path, items: pl.DataFrame | None = None, name: str = "items.parquet") -> Path:
    file = folder / name
    items = new_items() if items is None else items
    flat = items.with_columns(pl.col("genres").list.join("|")) if "genres" in items.columns else items
    match file.suffix:
        case ".parquet":
            items.write_parquet(file)
        case ".csv":
            flat.write_csv(file)
        case ".jsonl":
            items.write_ndjson(file)
    return file


@pytest.fixture(scope="module")
def added(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `finished` with three more items; read it, do not change it."""
    folder = tmp_path_factory.mktemp("added")
    add(finished.bundle, write(folder), folder / "more")
    return folder / "more"


def test_every_item_has_its_semantic_id_still_and_the_new_ones_have_others(finished: Run, added: Path) -> None:
    before, after = load_bundle(finished.bundle).catalog, load_bundle(added).catalog
    assert len(after) == len(before) + len(NEW)
    for row, item in enumerate(before.item_ids.to_pylist()):
        now = after.row(item)
        assert now is not None
        assert after.semantic_id(now) == before.semantic_id(row)
        assert after.describe(now) == before.describe(row)
        assert after.popularity[now] == before.popularity[row]
    new = [after.row(item) for item in NEW]
    assert [after.popularity[row] for row in new] == [0, 0, 0]
    assert after.describe(new[0]) == {"title": "Comedy number 77", "year": 1999, "genres": ["Comedy"]}


def test_weights_are_the_very_files(finished: Run, added: Path) -> None:
    for file in (finished.bundle / "model").iterdir():
        assert (added / "model" / file.name).stat().st_ino == file.stat().st_ino


def test_the_first_bundle_may_go_and_the_second_stays_whole(finished: Run, tmp_path: Path) -> None:
    first = Path(shutil.copytree(finished.bundle, tmp_path / "first"))
    add(first, write(tmp_path), tmp_path / "more")
    shutil.rmtree(first)
    Recommender.load(tmp_path / "more", device="cpu")


def test_on_another_file_system_weights_are_copied(finished: Run, tmp_path: Path, monkeypatch) -> None:
    def another(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", another)
    add(finished.bundle, write(tmp_path), tmp_path / "more")
    weights = [next((bundle / "model").glob("*.safetensors")) for bundle in (finished.bundle, tmp_path / "more")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert weights[0].stat().st_ino != weights[1].stat().st_ino


def test_it_is_a_bundle_like_any_other_and_says_where_it_comes_from(finished: Run, added: Path) -> None:
    recommender = Recommender.load(added, device="cpu")  # golden answers replayed
    manifest, before = recommender.bundle.manifest, load_bundle(finished.bundle).manifest
    assert manifest.version != before.version
    assert manifest.provenance["items_added"] == [{"to_version": before.version, "items": 3}]
    assert manifest.provenance["dataset"] == before.provenance["dataset"]
    assert manifest.item_token_ids == before.item_token_ids
    card = (added / "README.md").read_text()
    assert card.startswith((finished.bundle / "README.md").read_text())
    assert "3 items were added" in card and before.version in card
    assert (added / "training" / "metrics.json").read_bytes() == (
        finished.bundle / "training" / "metrics.json"
    ).read_bytes()


def test_without_the_new_items_answers_are_what_they_were(finished: Run, added: Path) -> None:
    old, new = (Recommender.load(path, device="cpu") for path in (finished.bundle, added))
    histories = [[old.bundle.catalog.item_id(row) for row in rows] for rows in ((3, 1, 4), (40,), (9, 2, 6, 5))]
    rows = np.array([new.bundle.catalog.row(item) for item in NEW])
    without = replace(new, availability=new.availability.changed(off=rows, on=rows[:0]))
    requests = [Request(history, k=10) for history in histories]
    for before, after in zip(old.recommend(requests), without.recommend(requests), strict=True):
        assert [item.item_id for item in after.items] == [item.item_id for item in before.items]
        assert [item.score for item in after.items] == pytest.approx([item.score for item in before.items], abs=1e-6)


def test_new_items_can_be_asked_for_scored_and_read_in_a_history(added: Path) -> None:
    recommender = Recommender.load(added, device="cpu")
    history = [recommender.bundle.catalog.item_id(row) for row in (3, 1, 4)]
    (answer,) = recommender.recommend([Request(history, k=3, filter=Filter(include_ids=NEW))])
    assert {item.item_id for item in answer.items} == set(NEW)
    assert all(item.source == "model" and np.isfinite(item.score) for item in answer.items)
    scored = recommender.score(ScoreRequest(history, candidates=list(NEW)))
    assert {one.item_id: one.score for one in scored.items} == pytest.approx(
        {item.item_id: item.score for item in answer.items}, abs=1e-5
    )
    (answer,) = recommender.recommend([Request([NEW[0]], k=3)])
    assert answer.history_used == 1 and answer.unknown_items == ()


@pytest.mark.parametrize("name", ["items.csv", "items.tsv", "items.jsonl"])
def test_formats_give_the_same_bundle(finished: Run, added: Path, tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name="items.csv" if name.endswith("tsv") else name)
    if name.endswith("tsv"):
        file = file.rename(tmp_path / name)
        file.write_text(file.read_text().replace(",", "\t"))
    add(finished.bundle, file, tmp_path / "more")
    assert load_bundle(tmp_path / "more").manifest.version == load_bundle(added).manifest.version


def changed(**columns: object) -> pl.DataFrame:
    return new_items().with_columns(**{name: pl.Series(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (changed(item_id=["zz-1", "zz-1", "zz-3"]), "item 'zz-1' has 2 rows"),
        (changed(item_id=["zz-1", "co01", "co02"]), r"2 items are in the catalog already \('co01', 'co02'\)"),
        (new_items().drop("year"), "has no column 'year', which the items of the bundle have"),
        (new_items().rename({"item_id": "id"}), "has no column 'item_id'"),
        (changed(year=["1999", "soon", "2001"]), "row 2: 'year soon is not of type integer'"),
        (changed(item_id=["zz-1", "", "zz-3"]), "row 2: 'item_id is empty'"),
        (new_items().clear(), "no items|is empty|no rows|holds"),
        (changed(title=["", "", ""]).with_columns(genres=pl.lit([], pl.List(pl.String))), "nothing to be embedded by"),
    ],
    ids=["twice", "known", "no year", "no id", "type", "empty id", "no rows", "no text"],
)
def test_a_file_that_does_not_fit_is_one_sentence_and_leaves_nothing(
    finished: Run, tmp_path: Path, items: pl.DataFrame, told: str
) -> None:
    file = write(tmp_path, items, "items.csv" if items.height else "items.parquet")
    with pytest.raises(DataError, match=told) as caught:
        add(finished.bundle, file, tmp_path / "out" / "more")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


def test_a_column_that_the_catalog_has_not_is_left_out_and_said(finished: Run, added: Path, tmp_path: Path) -> None:
    lines = add(finished.bundle, write(tmp_path, changed(price=[1, 2, 3])), tmp_path / "more")
    assert "left out, the catalog has no such column: price" in lines
    assert load_bundle(tmp_path / "more").manifest.version == load_bundle(added).manifest.version


def test_a_bundle_is_replaced_only_when_asked_and_never_the_first_one(finished: Run, tmp_path: Path) -> None:
    file, there = write(tmp_path), Path(shutil.copytree(finished.bundle, tmp_path / "there"))
    with pytest.raises(BundleError, match="--replace"):
        add(finished.bundle, file, there)
    add(finished.bundle, file, there, replace=True)
    assert load_bundle(there).catalog.row(NEW[0]) is not None
    with pytest.raises(InputError, match="the bundle itself"):
        add(there, write(tmp_path, changed(item_id=["a1", "a2", "a3"])), there, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "there"]


def test_items_are_added_to_what_was_added_to(finished: Run, added: Path, tmp_path: Path) -> None:
    add(added, write(tmp_path, changed(item_id=["a1", "a2", "a3"])), tmp_path / "more")
    versions = [load_bundle(path).manifest.version for path in (finished.bundle, added)]
    steps = load_bundle(tmp_path / "more").manifest.provenance["items_added"]
    assert [step["to_version"] for step in steps] == versions
    weights = [
        next((path / "model").glob("*.safetensors")).stat().st_ino for path in (finished.bundle, tmp_path / "more")
    ]
    assert weights[0] == weights[1]


def test_where_no_code_is_free_the_sentence_says_what_to_do(finished: Run, tmp_path: Path) -> None:
    base = BaseBundle.open(finished.bundle)
    count = int(np.prod(base.manifest.codebook_sizes)) - len(base.catalog) + 1
    one = new_items().head(1)
    many = pl.concat([one.with_columns(item_id=pl.lit(f"m{number}")) for number in range(count)])
    with pytest.raises(DataError, match="--from-bundle"):
        add(finished.bundle, write(tmp_path, many), tmp_path / "more")


def test_an_item_that_comes_back_has_its_id_again(finished: Run, gone_on: Later, tmp_path: Path) -> None:
    before = load_bundle(finished.bundle).catalog
    row = before.row(GONE)
    back = pl.DataFrame({"item_id": [GONE], **{name: [value] for name, value in before.describe(row).items()}})
    lines = add(gone_on.bundle, write(tmp_path, back), tmp_path / "more")
    after = load_bundle(tmp_path / "more").catalog
    assert after.semantic_id(after.row(GONE)) == before.semantic_id(row)
    assert any("have their semantic IDs again" in line for line in lines)
    assert not (tmp_path / "more" / "quantizer" / "retired.parquet").exists()


def test_the_ids_of_items_that_left_stay_reserved(gone_on: Later, tmp_path: Path) -> None:
    add(gone_on.bundle, write(tmp_path, changed(item_id=["a1", "a2", "a3"])), tmp_path / "more")
    assert GONE in BaseBundle.open(tmp_path / "more").published.item_ids


def test_a_bundle_of_a_checkpoint_from_elsewhere_says_why_it_cannot(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", TinyShape())
    items = pl.DataFrame({"item_id": ["new"], "title": ["New"], "year": [2000]})
    with pytest.raises(DataError, match="no embedder"):
        add(bundle, write(tmp_path, items), tmp_path / "more")


def test_a_damaged_bundle_is_refused(finished: Run, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(finished.bundle, tmp_path / "damaged"))
    weights = next((damaged / "model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        add(damaged, write(tmp_path), tmp_path / "more")


def test_a_bundle_that_would_answer_otherwise_is_not_sealed(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard has something to find: every item is on another's path."""
    extended = items_add.extended

    def swapped(catalog, table, codes):
        whole = extended(catalog, table, codes)
        return replace(whole, codes=np.roll(whole.codes, 1, axis=0))

    monkeypatch.setattr(items_add, "extended", swapped)
    with pytest.raises(BundleError, match="golden answer"):
        add(finished.bundle, write(tmp_path), tmp_path / "more")
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_the_proof_reads_golden_answers(finished: Run, added: Path) -> None:
    bundle = load_bundle(added)
    lines = (finished.bundle / layout.GOLDEN).read_text().splitlines()
    golden = [GoldenAnswer.from_json(line) for line in lines]
    requests = [Request(**answer.request) for answer in golden]
    prove_unchanged(bundle, golden, requests, NEW)
    first = golden[0]
    wrong = GoldenAnswer(first.request, [(item, score - 0.1) for item, score in first.items])
    with pytest.raises(BundleError):
        prove_unchanged(bundle, [wrong, *golden[1:]], requests, NEW)


def test_a_bundle_that_fails_its_golden_answers_is_not_built_upon(finished: Run, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(finished.bundle, tmp_path / "wrong"))
    lines = [json.loads(line) for line in (wrong / layout.GOLDEN).read_text().splitlines()]
    lines[0]["items"][0]["score"] -= 0.5
    (wrong / layout.GOLDEN).write_text("".join(json.dumps(line) + "\n" for line in lines))
    reseal(wrong)
    with pytest.raises(BundleError, match="golden answer 1"):
        add(wrong, write(tmp_path), tmp_path / "more")
