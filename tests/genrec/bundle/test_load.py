"""A bundle comes back from the disk as it was written, or not at all."""

import shutil
from pathlib import Path

import pytest
import torch

from genrec import semantic_id
from genrec.bundle import layout, load_bundle, load_draft
from genrec.errors import BundleError, InputError
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
    def forbidden(file: Path) -> str:
        raise PermissionError(13, "Permission denied", file.name)

    monkeypatch.setattr(layout, "sha256_of", forbidden)
    with pytest.raises(BundleError, match=r"cannot be read: .*Permission denied: 'README\.md'"):
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
