"""The door for model families of other packages: found among entry points, imported when asked for, checked, named."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, T5Config

from genrec import model_plugin
from genrec.decoding.generate import GenerateEngine
from genrec.decoding.scoring import path_log_probs
from genrec.errors import EngineError, InputError
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import NO_INPUTS
from genrec.model_plugin import ModelPlugin, check_inputs, installed_plugin, plugin_in_use
from genrec.rect5 import PLUGIN, RecT5Config, RecT5ForConditionalGeneration
from genrec.trie import ItemTrie
from tests.plugin_packages import install

HEAD = """
from transformers import T5Config, T5ForConditionalGeneration
from genrec.model_plugin import ModelPlugin
class Config(T5Config):
    model_type = {name!r}
class Model(T5ForConditionalGeneration):
    config_class = Config
"""
PLUGIN_LINE = 'PLUGIN = ModelPlugin(config_class=Config, model_class=Model, architecture="seq2seq", {more})\n'


def bring(
    folder: Path, name: str, more: str = "", body: str = "", monkeypatch: pytest.MonkeyPatch | None = None
) -> Path:
    code = HEAD.format(name=name) + body + PLUGIN_LINE.format(more=more)
    install(folder, f"package_{name}", code, {name: f"package_{name}:PLUGIN"})
    if monkeypatch is not None:
        monkeypatch.syspath_prepend(str(folder))
    return folder


def test_our_own_family_comes_through_the_door() -> None:
    assert installed_plugin("rect5") is PLUGIN
    assert installed_plugin("rect5") is PLUGIN
    assert isinstance(AutoConfig.for_model("rect5"), RecT5Config)


def test_a_family_of_transformers_needs_no_plugin() -> None:
    assert installed_plugin("t5") is None
    assert installed_plugin("llama") is None


def test_a_package_is_imported_when_its_type_is_asked_for_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(tmp_path, "lazyt5", monkeypatch=monkeypatch)
    assert "package_lazyt5" not in sys.modules
    plugin = installed_plugin("lazyt5")
    assert plugin is not None and plugin.model_type == "lazyt5"
    assert "package_lazyt5" in sys.modules


def test_no_package_can_take_the_place_of_a_family_that_transformers_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(tmp_path, "t5", monkeypatch=monkeypatch)
    assert installed_plugin("t5") is None
    assert "package_t5" not in sys.modules
    assert type(AutoConfig.for_model("t5")) is T5Config


def test_a_type_that_nobody_has_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'m3rec' is of neither .* \(installed: .*rect5.*\); install the package"):
        installed_plugin("m3rec")


def test_a_type_that_two_packages_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "other"):
        install(tmp_path, package, "", {"twice": f"{package}:PLUGIN"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        InputError, match=r"'twice' is brought by one:PLUGIN and by other:PLUGIN; uninstall all but one"
    ):
        installed_plugin("twice")


FORWARD = "    def forward(self, input_ids=None, labels=None, ages=None, **kwargs): ...\n"
MISTAKES = {
    "named otherwise": ('model_type = "elset5"', "", "the model_type 'elset5'"),
    "an input that forward lacks": ("", 'inputs=("ages",), fill=None', "forward of Model has no argument 'ages'"),
    "a forward without labels": (
        "def forward(self, input_ids=None, **kwargs): ...", "", "forward of Model has no argument 'labels'"
    ),
    "a key that the config lacks": ("", 'config_keys=("ages",)', "Config has no 'ages', one of its config_keys"),
    "a class of another config": ("config_class = T5Config", "", "not consistent with the config class"),
    "a misspelt field": ("", "input=()", "unexpected keyword argument 'input'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_plugin_that_is_not_as_it_must_be_is_named_with_its_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, more, sentence = MISTAKES[name]
    model_type = f"wrong{list(MISTAKES).index(name)}"
    target = "Config" if line.startswith("model_type") else "Model"
    body = f"class {target}({target}):\n    {line}\n" if line else ""
    bring(tmp_path, model_type, more, body, monkeypatch)
    with pytest.raises(InputError) as refused:
        installed_plugin(model_type)
    assert str(refused.value).startswith(f"the plug-in '{model_type}' of package package_{model_type} cannot be used: ")
    assert sentence in str(refused.value)


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "broken_package", "import not_there", {"brokent5": "broken_package:PLUGIN"})
    install(tmp_path, "empty_package", "PLUGIN = 3", {"emptyt5": "empty_package:PLUGIN"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="'brokent5' of package broken_package cannot be used: No module named"):
        installed_plugin("brokent5")
    with pytest.raises(InputError, match="'emptyt5' of package empty_package cannot be used: it is no ModelPlugin"):
        installed_plugin("emptyt5")


def test_extra_inputs_of_a_causal_model_are_refused() -> None:
    plugin = ModelPlugin(
        config_class=RecT5Config, model_class=RecT5ForConditionalGeneration, architecture="causal", inputs=("ages",)
    )
    assert "compute them from the ids" in str(plugin.mistake("rect5"))


@pytest.mark.system
def test_another_process_finds_what_is_installed_there_and_only_that(tmp_path: Path) -> None:
    code = "import sys; from genrec.model_plugin import installed_plugin; installed_plugin('awayt5'); print('found')"
    found = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(bring(tmp_path, "awayt5"))}, text=True,
                           capture_output=True)  # fmt: skip
    assert (found.returncode, found.stdout) == (0, "found\n"), found.stderr
    with pytest.raises(InputError, match="'awayt5' is of neither"):
        installed_plugin("awayt5")


@pytest.fixture(scope="module")
def model() -> RecT5ForConditionalGeneration:
    installed_plugin("rect5")
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    return RecT5ForConditionalGeneration(RecT5Config(**sizes)).eval()


def test_nobody_can_ask_a_model_without_its_inputs_by_mistake(model: RecT5ForConditionalGeneration) -> None:
    assert plugin_in_use(model) is PLUGIN
    inputs = PLUGIN.model_inputs(ItemTokens(((4,), (5,))))
    check_inputs(model, inputs)
    trie = ItemTrie.from_sorted(torch.tensor([[4, 5]], dtype=torch.int32).numpy())
    wanted = r"'rect5' takes the extra inputs \['item_position_ids', 'meta_type_ids'\] and was given \[\]"
    with pytest.raises(EngineError, match=wanted):
        check_inputs(model, NO_INPUTS)
    with pytest.raises(EngineError, match=wanted):
        GenerateEngine(model, trie, (0,), 1.0)
    with pytest.raises(EngineError, match=wanted):
        path_log_probs(model, [[4, 5]], [[4, 5]], (0,))


def test_what_was_asked_for_once_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_plugin("rect5")
    monkeypatch.setattr(model_plugin, "entry_points", lambda **_: pytest.fail("looked again"))
    assert installed_plugin("rect5") is PLUGIN
