"""A checkpoint in memory shows a library what a model needs, and nothing that would run or fetch."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec.checkpoint import Checkpoint, is_checkpoint_text, read_checkpoint, read_texts
from genrec.errors import BundleError, InputError
from genrec.models import build_model, build_tokenizer, load_model


def checkpoint(**texts: Any) -> Checkpoint:
    return Checkpoint(
        "model", {name.replace("_json", ".json"): json.dumps(text).encode() for name, text in texts.items()}, {}
    )


@pytest.mark.parametrize(
    ("name", "looked_at"),
    [
        ("config.json", True),
        ("generation_config.json", True),
        ("tokenizer.json", True),
        ("adapter_config.json", True),
        ("model.safetensors.index.json", True),
        ("vocab.txt", True),
        ("spiece.model", True),
        ("model.safetensors", False),
        ("pytorch_model.bin", False),
        ("processor_config.json", False),
        ("chat_template.jinja", False),
        ("modeling.py", False),
        ("trainer_state.json", False),
    ],
)
def test_only_what_config_and_tokenizer_are_made_of_is_looked_at(name: str, looked_at: bool) -> None:
    assert is_checkpoint_text(name) is looked_at


def test_what_is_unpacked_is_what_a_library_needs_and_goes_away() -> None:
    texts = dict.fromkeys(
        ("config.json", "tokenizer.json", "vocab.txt", "spiece.model", "generation_config.json"), b"{}"
    )
    texts |= {"adapter_config.json": b"{}", "model.safetensors.index.json": b"{}"}
    with Checkpoint("model", texts, {}).unpacked() as directory:
        assert sorted(path.name for path in directory.iterdir()) == [
            "config.json",
            "spiece.model",
            "tokenizer.json",
            "vocab.txt",
        ]
        assert directory.name == "model"
        assert directory.parent.stat().st_mode & 0o077 == 0
    assert not directory.parent.exists()


def test_it_goes_away_also_when_the_library_fails() -> None:
    with pytest.raises(RuntimeError, match="broken"), checkpoint(config_json={}).unpacked() as directory:
        raise RuntimeError("broken")
    assert not directory.parent.exists()


def test_without_a_temporary_directory_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", none)
    refused = pytest.raises(InputError, match=r"no temporary directory can be written \(.*\); set TMPDIR")
    with refused, checkpoint(config_json={}).unpacked():
        pass


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_text_that_is_no_json_object_is_refused(file: str, content: bytes) -> None:
    with pytest.raises(BundleError, match=f"^model/{file} (cannot be read|is not a JSON object)"):
        Checkpoint("model", {"config.json": b"{}", file: content}, {}).check_texts()


def test_keys_are_found_at_any_depth_without_recursion() -> None:
    deep: Any = {"auto_map": {"AutoConfig": "evil.Config"}}
    for _ in range(400):
        deep = {"a": [deep]}
    with pytest.raises(BundleError, match="holds 'auto_map', which could run code"):
        checkpoint(config_json=deep).check_texts()


def test_a_long_key_is_not_repeated_whole() -> None:
    with pytest.raises(BundleError) as refused:
        checkpoint(config_json={"custom_" + "x" * 10_000: 1}).config()
    assert len(str(refused.value)) < 300


def test_a_vocabulary_may_hold_words_that_are_keys_elsewhere() -> None:
    words = {"auto_map": 1, "custom_": 2, "vocab_file": 3}
    texts = checkpoint(config_json={"vocab_size": 4}, tokenizer_json={"model": {"vocab": words}}, vocab_json=words)
    texts.check_texts()


def test_base_models_may_have_a_chat_template_and_bundles_may_not() -> None:
    texts = checkpoint(config_json={"vocab_size": 4}, tokenizer_config_json={"chat_template": "{{ 1 }}"})
    assert texts.config() == {"vocab_size": 4}
    with pytest.raises(BundleError, match="holds 'chat_template', a program"):
        texts.check_texts()


def test_a_directory_is_read_whole(bundle_path: Path, architecture: str) -> None:
    found = read_checkpoint(bundle_path / "model")
    assert found.name == "model"
    assert {"config.json", "tokenizer.json"} <= found.texts.keys()
    assert read_texts(bundle_path / "model").weights == {}
    model = build_model(found, architecture)  # type: ignore[arg-type]
    for name, weight in load_model(bundle_path / "model", architecture).state_dict().items():  # type: ignore[arg-type]
        assert torch.equal(weight, model.state_dict()[name])
    assert build_tokenizer(found).all_special_ids


def test_parameters_of_the_same_dtype_are_the_tensors_that_were_read(bundle_path: Path, architecture: str) -> None:
    """Without a second copy in memory."""
    found = read_checkpoint(bundle_path / "model")
    read = {weight.data_ptr() for weight in found.weights.values()}
    model = build_model(found, architecture)  # type: ignore[arg-type]
    assert {parameter.data_ptr() for parameter in model.parameters()} <= read


def test_a_base_model_keeps_its_path_for_those_who_ask(bundle_path: Path, architecture: str) -> None:
    """PEFT asks, and would ask the hub for a model of the name None."""
    model = load_model(bundle_path / "model", architecture)  # type: ignore[arg-type]
    assert model.name_or_path == model.config.name_or_path == str(bundle_path / "model")
