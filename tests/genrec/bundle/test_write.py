"""A draft is complete and in order; a seal takes effect whole or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from genrec.bundle import layout, load_draft, seal, write
from genrec.bundle.manifest import Golden
from genrec.errors import BundleError, DataError
from genrec.recommender import Recommender
from tests.fakes import TinyShape, seal_tiny, write_tiny_draft

GOLDEN = Golden(score_tolerance=1e-3)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_draft(tmp_path_factory.mktemp("write"), TinyShape())


@pytest.fixture(scope="module")
def sealed(draft: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_tiny(draft, tmp_path_factory.mktemp("sealed") / "tiny")


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in layout.walk(root)}


def test_the_rows_of_a_draft_are_sorted_by_token_path_and_keep_their_columns(draft: Path) -> None:
    table = pq.read_table(draft / layout.ITEMS)
    assert table.column_names == ["item_id", "code_0", "code_1", "code_2", "popularity", "title", "year"]
    assert [str(kind) for kind in table.schema.types] == ["string", *["int32"] * 3, "int64", "string", "int64"]
    codes = list(zip(*(table.column(f"code_{level}").to_pylist() for level in range(3)), strict=True))
    assert codes == sorted(codes)
    titles = dict(zip(table.column("item_id").to_pylist(), table.column("title").to_pylist(), strict=True))
    assert all(title == f"Title of {item_id}" for item_id, title in titles.items())
    assert len(titles) == 40


def test_a_draft_is_sorted_by_token_path_even_where_tokens_do_not_follow_codes(tmp_path: Path) -> None:
    plain = load_draft(write_tiny_draft(tmp_path / "plain", TinyShape()))
    reversed_ids = tuple(tuple(reversed(level)) for level in plain.manifest.item_token_ids)
    manifest = plain.manifest.model_copy(update={"item_token_ids": reversed_ids})
    write.write_draft(tmp_path / "draft", manifest, plain.catalog, plain.path / "model")
    turned = load_draft(tmp_path / "draft")
    assert turned.trie.paths.tolist() == sorted(turned.trie.paths.tolist())
    for item_id in plain.catalog.item_ids.to_pylist():
        row, turned_row = plain.catalog.row(item_id), turned.catalog.row(item_id)
        assert row is not None and turned_row is not None
        assert plain.catalog.semantic_id(row) == turned.catalog.semantic_id(turned_row)


def test_a_draft_has_the_quantizer_if_one_is_given(draft: Path, tmp_path: Path) -> None:
    (tmp_path / "quantizer").mkdir()
    (tmp_path / "quantizer" / "quantizer.json").write_text("{}")
    plain = load_draft(draft)
    write.write_draft(tmp_path / "draft", plain.manifest, plain.catalog, draft / "model", tmp_path / "quantizer")
    assert (tmp_path / "draft" / "quantizer" / "quantizer.json").read_text() == "{}"


def test_sealing_adds_texts_files_and_directories_and_lists_them_all(draft: Path, tmp_path: Path) -> None:
    (tmp_path / "plots" / "deep").mkdir(parents=True)
    (tmp_path / "plots" / "deep" / "loss.svg").write_text("<svg/>")
    (tmp_path / "metrics.json").write_text("{}")
    manifest = seal(
        draft,
        tmp_path / "bundles" / "new",
        extra={
            "golden.jsonl": "{}\n",
            "training/metrics.json": tmp_path / "metrics.json",
            "training/plots": tmp_path / "plots",
        },
        golden=GOLDEN,
    )
    written = files(tmp_path / "bundles" / "new")
    assert written.keys() - {"manifest.json"} == manifest.files.keys()
    assert written["training/plots/deep/loss.svg"] == b"<svg/>"
    assert written["training/metrics.json"] == b"{}"
    assert written["golden.jsonl"] == b"{}\n"
    assert json.loads(written["manifest.json"])["golden"]["score_tolerance"] == GOLDEN.score_tolerance
    assert "draft.json" not in written
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["new"]


def test_whoever_may_read_other_files_may_read_a_bundle(draft: Path, tmp_path: Path) -> None:
    (draft / "model" / "model.safetensors").chmod(0o600)
    plain = tmp_path / "plain"
    plain.touch()
    seal(draft, tmp_path / "sealed", extra={}, golden=Golden())
    modes = {file.stat().st_mode for file in (tmp_path / "sealed").rglob("*") if file.is_file()}
    assert modes == {plain.stat().st_mode}


def test_the_same_draft_has_the_same_version_wherever_it_is_sealed(draft: Path, tmp_path: Path) -> None:
    one, two = (seal(draft, tmp_path / name, extra={"golden.jsonl": "{}"}, golden=GOLDEN) for name in ("one", "two"))
    other = seal(draft, tmp_path / "three", extra={"golden.jsonl": "{ }"}, golden=GOLDEN)
    assert one.version == two.version != other.version


def test_the_manifest_is_written_when_all_else_is_on_the_disk(
    draft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    sync, write_text = layout.sync, layout.write_text
    at_manifest: dict[str, set[str]] = {}

    def watched_write(file: Path, text: str) -> None:
        root = file.parent
        assert file.name == "manifest.json"
        at_manifest["there"] = {path.relative_to(root).as_posix() for path in layout.walk(root)}
        at_manifest["synced"] = {path.relative_to(root).as_posix() for path in synced if path.is_file()}
        write_text(file, text)

    monkeypatch.setattr(layout, "sync", lambda path: (synced.append(path), sync(path)))
    monkeypatch.setattr(layout, "write_text", watched_write)
    manifest = seal(draft, tmp_path / "tiny", extra={"golden.jsonl": "{}"}, golden=GOLDEN)
    assert at_manifest["there"] == at_manifest["synced"] == manifest.files.keys()
    assert synced[-1] == tmp_path  # the rename itself


def test_a_bundle_is_not_replaced_unasked(draft: Path, sealed: Path) -> None:
    before = files(sealed)
    with pytest.raises(BundleError, match="holds a bundle already; add --replace"):
        seal_tiny(draft, sealed)
    assert files(sealed) == before


@pytest.mark.parametrize("replace", [True, False])
def test_a_directory_that_is_no_bundle_is_never_replaced(draft: Path, tmp_path: Path, replace: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        seal(draft, tmp_path / "home", extra={}, golden=GOLDEN, replace=replace)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_is_replaced_when_asked_and_nothing_is_left_beside_it(sealed: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(sealed, tmp_path / "place" / "tiny"))
    other = write_tiny_draft(tmp_path / "other", TinyShape(seed=5))
    recommender = Recommender.of(load_draft(other))
    assert recommender.bundle.manifest.version == "draft"
    seal(other, target, extra={"golden.jsonl": "{}"}, golden=GOLDEN, replace=True)
    assert files(target).keys() != files(sealed).keys()
    assert (target / "model" / "model.safetensors").read_bytes() == (other / "model/model.safetensors").read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]


def fail_at(name: str) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise OSError(f"no space left for {name}")

    return failing


@pytest.mark.parametrize("step", ["write_text", "sync_tree", "sha256_of", "sync", "replace_directory"])
def test_a_bundle_stands_if_sealing_its_replacement_fails_midway(
    draft: Path, sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = Path(shutil.copytree(sealed, tmp_path / "place" / "tiny"))
    before = files(target)
    monkeypatch.setattr(layout, step, fail_at(step))
    with pytest.raises(OSError, match="no space left"):
        seal(draft, target, extra={"golden.jsonl": "{}"}, golden=GOLDEN, replace=True)
    assert files(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("name", ["model/pytorch_model.bin", "model/training_args.bin", "notes.pkl", "LICENSE"])
def test_a_draft_with_a_file_that_no_bundle_holds_is_not_sealed(draft: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=f"file {name} is of a kind that a bundle never holds"):
        seal(draft, tmp_path / "place" / "tiny", extra={name: "text"}, golden=GOLDEN)
    assert list((tmp_path / "place").iterdir()) == []


def test_a_catalog_with_a_code_that_has_no_token_is_not_written(draft: Path, tmp_path: Path) -> None:
    plain = load_draft(draft)
    fewer = tuple(level[:-1] for level in plain.manifest.item_token_ids)
    manifest = plain.manifest.model_copy(
        update={"item_token_ids": fewer, "codebook_sizes": tuple(len(level) for level in fewer)}
    )
    with pytest.raises(DataError, match="has no token"):
        write.write_draft(tmp_path / "draft", manifest, plain.catalog, draft / "model")


def test_popularity_and_metadata_follow_their_items(sealed: Path, draft: Path) -> None:
    bundle = load_draft(draft)
    rows = np.arange(len(bundle.catalog))
    assert [bundle.catalog.describe(int(row), ["title"])["title"] for row in rows] == [
        f"Title of {bundle.catalog.item_id(int(row))}" for row in rows
    ]
