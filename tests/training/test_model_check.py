import json
from pathlib import Path

import pytest

from genrec.errors import RecipeError
from tests.training.bench import recipe
from training.model_check import check_model


def checkpoint(path: Path, **config: object) -> str:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [("llama", "causal"), ("qwen2", "causal"), ("t5", "seq2seq"), ("no-such", "causal"), ("no-such", "seq2seq")],
)
def test_the_architecture_of_the_family_passes_and_a_family_that_is_unknown(
    tmp_path: Path, model_type: str, architecture: str
) -> None:
    check_model(recipe(model={"architecture": architecture, "config": {"model_type": model_type}}))
    path = checkpoint(tmp_path / "base", model_type=model_type)
    check_model(recipe(model={"architecture": architecture, "checkpoint": path}))


def test_the_other_architecture_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "base", model_type="llama")
    with pytest.raises(RecipeError, match=r'base. is a decoder-only model \(llama\), but .* set it to "causal"'):
        check_model(recipe(model={"architecture": "seq2seq", "checkpoint": path}))
    with pytest.raises(RecipeError, match=r'\[model.config\] is an encoder-decoder model \(t5\).* to "seq2seq"'):
        check_model(recipe(model={"architecture": "causal", "config": {"model_type": "t5"}}))


def test_what_cannot_be_told_yet_passes(tmp_path: Path) -> None:
    check_model(recipe(model={"architecture": "seq2seq", "checkpoint": "someone/on-a-hub"}))
    (tmp_path / "config.json").write_text("{")
    check_model(recipe(model={"architecture": "seq2seq", "checkpoint": str(tmp_path)}))
