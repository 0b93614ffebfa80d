"""What a run takes of the bundle that it goes on from, and when it does not."""

import shutil
from pathlib import Path

import pytest

from genrec.bundle import layout
from genrec.errors import BundleError, RecipeError
from tests.training.runs import Run
from training.base import BaseBundle, open_base


def test_its_items_are_published_with_their_semantic_ids(finished: Run) -> None:
    base = BaseBundle.open(finished.bundle)
    assert list(base.published.item_ids) == base.catalog.item_ids.to_pylist()
    assert (base.published.codes == base.catalog.codes).all()
    assert base.origin == {"name": base.manifest.name, "version": base.manifest.version}
    assert base.quantizer() == finished.bundle / "quantizer"


@pytest.mark.parametrize("file", [layout.ITEMS, "quantizer/quantizer.json"])
def test_a_file_that_was_edited_is_refused(finished: Run, tmp_path: Path, file: str) -> None:
    copied = Path(shutil.copytree(finished.bundle, tmp_path / "copied"))
    content = bytearray((copied / file).read_bytes())
    content[-1] ^= 1
    (copied / file).write_bytes(content)
    with pytest.raises(BundleError, match=f"{file}.*damaged"):
        BaseBundle.open(copied).quantizer()


def test_what_is_no_bundle_is_no_base(tmp_path: Path, finished: Run) -> None:
    with pytest.raises(BundleError, match="not a"):
        open_base(finished.recipe(f'base.bundle="{tmp_path}"'))
    assert open_base(finished.recipe()) is None


def test_weights_go_on_as_what_they_are(finished: Run) -> None:
    recipe = finished.recipe(f'base.bundle="{finished.bundle}"')
    other = {"causal": "seq2seq", "seq2seq": "causal"}[finished.architecture]
    changed = recipe.model_copy(update={"model": recipe.model.model_copy(update={"architecture": other})})
    with pytest.raises(RecipeError, match=f'set it to "{finished.architecture}"'):
        open_base(changed)
