"""A bundle comes back from the disk as it was written, or not at all."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from genrec import semantic_id
from genrec.bundle import layout, load_bundle, load_draft
from genrec.errors import BundleError, InputError
from genrec.recommender import Recommender
from tests.audit import listening
from tests.fakes import TinyShape, write_tiny_draft


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_draft(tmp_path_factory.mktemp("load"), TinyShape())


def test_all_parts_of_a_loaded_bundle_agree(bundle_path: Path, architecture: str) -> None:
    bundle = load_bundle(bundle_path)
    assert (bundle.manifest.name, bundle.manifest.architecture, bundle.dtype) == ("tiny", architecture, "float32")
    assert bundle.path == bundle_path
    assert len(bundle.catalog) == bundle.trie.num_items == 40
    for row in range(40):
        codes = bundle.catalog.semantic_id(row)
        path = [bundle.manifest.item_token_ids[level][code] for level, code in enumerate(codes)]
        assert bundle.encoder.target(row) == bundle.trie.paths[row].tolist() == path
        assert bundle.trie.descend(path) == row
        assert bundle.catalog.describe(row)["title"] == f"Title of {bundle.catalog.item_id(row)}"
    assert bundle.catalog.columns == {"title": "string", "year": "integer"}
    assert not bundle.model.training
    assert {parameter.dtype for parameter in bundle.model.parameters()} == {torch.float32}


def test_a_sealed_bundle_is_its_draft(draft: Path, causal_bundle_path: Path) -> None:
    one, other = load_draft(draft), load_bundle(causal_bundle_path)
    assert one.catalog.item_ids.equals(other.catalog.item_ids)
    assert one.trie.paths.tolist() == other.trie.paths.tolist()
    sealed_facts = {"version", "created_at", "files"}
    assert one.manifest.model_dump(exclude=sealed_facts) == other.manifest.model_dump(exclude=sealed_facts)
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_ids_are_looked_up_in_the_trie_of_the_bundle(causal_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building it again takes longer than all other checks of a large catalog."""
    monkeypatch.setattr(semantic_id, "build_id_trie", lambda _: pytest.fail("the trie was built again"))
    catalog = load_bundle(causal_bundle_path).catalog
    assert [catalog.row(catalog.item_id(row)) for row in range(40)] == list(range(40))


def test_a_bundle_may_be_given_as_text(causal_bundle_path: Path) -> None:
    assert load_bundle(str(causal_bundle_path)).manifest.name == "tiny"


def test_a_path_that_is_no_bundle_is_refused(draft: Path, bundle_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a directory; give the path of a bundle"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"is not a directory"):
        load_bundle(bundle_copy / layout.MANIFEST)
    with pytest.raises(BundleError, match=r"has no manifest\.json, so it is not a \(finished\) bundle"):
        load_bundle(draft)
    with pytest.raises(BundleError, match=r"draft\.json cannot be read"):
        load_draft(bundle_copy)
    shutil.copy(draft / layout.DRAFT_MANIFEST, bundle_copy / layout.MANIFEST)
    with pytest.raises(BundleError, match="is a draft; seal it first"):
        load_bundle(bundle_copy)


def test_a_file_that_cannot_be_read_is_a_refusal(causal_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def forbidden(path: Path, flags: int, **options: int) -> int:
        if Path(path).name == "README.md":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, **options)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(BundleError, match=r"^file README\.md cannot be read: \[Errno 13\] Permission denied$"):
        load_bundle(causal_bundle_path)


@pytest.mark.parametrize(("asked", "given"), [("bf16", "bfloat16"), ("bfloat16", "bfloat16"), ("auto", "float32")])
def test_weights_are_loaded_as_asked(causal_bundle_path: Path, asked: str, given: str) -> None:
    bundle = load_bundle(causal_bundle_path, dtype=asked)
    assert bundle.dtype == given
    assert {parameter.dtype for parameter in bundle.model.parameters()} == {getattr(torch, given)}


def test_a_dtype_or_device_that_cannot_be_had_is_the_callers_mistake(causal_bundle_path: Path) -> None:
    with pytest.raises(InputError, match="dtype 'int8' is unknown"):
        load_bundle(causal_bundle_path, dtype="int8")
    with pytest.raises(InputError, match="device 'tpu' is unknown"):
        load_bundle(causal_bundle_path, device="tpu")


def test_another_version_than_expected_is_refused_before_anything_but_the_manifest_is_opened(
    causal_bundle_path: Path,
) -> None:
    version = load_bundle(causal_bundle_path).manifest.version
    assert load_bundle(causal_bundle_path, expect_version=version).manifest.version == version
    with listening() as heard, pytest.raises(BundleError, match=f"has version {version}, but 0123456789ab is expected"):
        load_bundle(causal_bundle_path, expect_version="0123456789ab")
    assert heard.paths == [str(causal_bundle_path / layout.MANIFEST)]
    with pytest.raises(InputError, match="'latest' is not the version of a bundle"):
        load_bundle(causal_bundle_path, expect_version="latest")
    with pytest.raises(BundleError, match="is expected"):
        Recommender.load(causal_bundle_path, expect_version="0123456789ab")


def test_a_device_that_is_not_there_is_told_before_gigabytes_are_read(causal_bundle_path: Path) -> None:
    with listening() as heard, pytest.raises(InputError, match="device 'tpu' is unknown"):
        load_bundle(causal_bundle_path, device="tpu")
    assert heard.paths == [str(causal_bundle_path / layout.MANIFEST)]
