"""docs/your-data.md tells the errors of its own example: each is provoked here, and stands there word for word."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from genrec.errors import GenrecError
from tests.training.bench import RememberingProgress
from tests.training.test_import_checkpoint import CODES, Foreign, write_foreign
from training import commands
from training.pipeline import run_pipeline
from training.recipe import load_recipe
from training.stages import STAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/your-data.md").read_text(encoding="utf-8")
FILE = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)

Change = tuple[str, str, str]
"""File, what stands there, what stands there instead."""


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, and its recipe as the page puts it together."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILE.findall(PAGE):
        (tmp_path / name).write_text(text, encoding="utf-8")
    own = (ROOT / "training/recipes/own-data.toml").read_text(encoding="utf-8")
    with (tmp_path / "films.toml").open("a", encoding="utf-8") as recipe:
        recipe.write(own[own.index("# ---- embed") :])
    return tmp_path


def prepare(*overrides: str) -> None:
    run_pipeline(STAGES, load_recipe("films.toml", overrides), Path("work"), RememberingProgress(), until="prepare")


def test_the_example_of_the_page_is_read_whole(example: Path) -> None:
    prepare()
    report = json.loads((example / "work/prepare/report.json").read_text())
    assert "30" in json.dumps(report)


@pytest.mark.parametrize(
    ("change", "override"),
    [
        (None, "prepare.interactions.path=viewing.csv"),
        (None, "prepare.interactions.separator=,"),
        (None, "prepare.interactions.user=whom"),
        (None, "prepare.interactions.usr=who"),
        (("viewings.csv", "2024-01-05 21:00", "05.01.2024"), ""),
        (("viewings.csv", "ann;f03", ";f03"), ""),
        (("films.csv", "1994", "unknown"), ""),
        (("films.csv", "f10;Moon Hotel", "f09;Moon Hotel"), ""),
        (("films.csv", "f10;Moon Hotel", "f11;Moon Hotel"), ""),
        (("films.toml", ', separator = "|" }', " }"), ""),
        (None, "prepare.user_core=9"),
    ],
)
def test_an_error_of_the_example_stands_on_the_page(example: Path, change: Change | None, override: str) -> None:
    if change is not None:
        name, old, new = change
        text = (example / name).read_text(encoding="utf-8")
        assert old in text
        (example / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(GenrecError) as caught:
        prepare(*filter(None, [override]))
    assert caught.value.exit_code == 65
    sentence = str(caught.value).replace(str(example), "…").replace("|", r"\|")
    assert f"| `{sentence}` |" in PAGE


def test_a_bundle_that_is_there_is_not_replaced_unasked(example: Path) -> None:
    (example / "bundles/films").mkdir(parents=True)
    (example / "bundles/films/manifest.json").write_text("{}")
    with pytest.raises(GenrecError) as caught:
        commands.train("films.toml", Path("bundles/films"))
    assert f"| `{caught.value}` |" in PAGE


def shared_codes(foreign: Foreign) -> None:
    foreign.codes(CODES | {"d": (2, 4)})


def unknown_token(foreign: Foreign) -> None:
    foreign.codes(CODES | {"d": (17, 4)})


def unknown_word(foreign: Foreign) -> None:
    foreign.prompt(suffix=["<eos>"])


def item_without_codes(foreign: Foreign) -> None:
    foreign.codes({item: codes for item, codes in CODES.items() if item != "e"})


def pickled_weights(foreign: Foreign) -> None:
    (foreign.folder / "hf/model.safetensors").rename(foreign.folder / "hf/pytorch_model.bin")


def an_adapter(foreign: Foreign) -> None:
    (foreign.folder / "hf/adapter_config.json").write_text("{}")


def smaller_model(foreign: Foreign) -> None:
    tokenizer = AutoTokenizer.from_pretrained(foreign.folder / "hf")
    tokenizer.add_tokens(["<a_17>"])
    tokenizer.save_pretrained(foreign.folder / "hf")
    foreign.codes(CODES | {"d": (17, 4)})


def other_columns(foreign: Foreign) -> None:
    (foreign.folder / "codes.csv").write_text("item_id,c0,c1\na,1,1\n")


@pytest.mark.parametrize(
    "damage",
    [
        shared_codes, unknown_token, unknown_word, item_without_codes, other_columns, pickled_weights, an_adapter,
        smaller_model,
    ],
)  # fmt: skip
def test_an_error_of_an_import_stands_on_the_page(
    damage: Callable[[Foreign], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = write_foreign("causal", tmp_path)
    damage(foreign)
    with pytest.raises(GenrecError) as caught:
        foreign.imported()
    assert caught.value.exit_code == 65
    assert f"| `{str(caught.value).replace(f'{tmp_path}/', '')}` |" in PAGE
