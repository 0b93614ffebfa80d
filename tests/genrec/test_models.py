"""Checkpoints are loaded whole or not at all, without code, pickle or network."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from genrec.errors import BundleError, InputError
from genrec.models import (
    check_config,
    embedding_rows,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
    special_ids,
)


@pytest.fixture
def checkpoint(causal_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(causal_bundle_path / "model", tmp_path / "model"))


def test_a_loaded_model_is_ready_to_decode(bundle_path: Path, architecture: str) -> None:
    model = load_model(bundle_path / "model", architecture)  # type: ignore[arg-type]
    assert not model.training
    assert model.config.is_encoder_decoder == (architecture == "seq2seq")
    assert model.generation_config.to_diff_dict() == GenerationConfig().to_diff_dict()
    assert embedding_rows(model) == (19, 19)


def test_special_tokens_are_those_of_the_tokenizer_and_of_the_config(checkpoint: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint, "causal")
    assert special_ids(model, tokenizer) == {0, 1, 2, 3}
    model.config.eos_token_id = [1, 7]
    model.config.decoder_start_token_id = 9
    model.config.sep_token_id = 11
    assert special_ids(model, tokenizer) == {0, 1, 2, 3, 7, 9, 11}


def test_loading_says_nothing_and_leaves_the_librarys_voice_as_it_was(
    checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_info()
    transformers_logging.enable_progress_bar()
    try:
        load_model(checkpoint, "causal")
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | {"vocab_size": 20}))
        with pytest.raises(BundleError):
            load_model(checkpoint, "causal")
        assert transformers_logging.get_verbosity() == transformers_logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(verbosity)
        if not bars:
            transformers_logging.disable_progress_bar()
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_remote_names_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gpt2/config\.json cannot be read"):
        load_model(tmp_path / "gpt2", "causal")
    with pytest.raises(BundleError, match="the tokenizer in gpt2/ cannot be loaded"):
        load_tokenizer(tmp_path / "gpt2")


def test_weights_in_pickle_are_not_read(checkpoint: Path) -> None:
    model = load_model(checkpoint, "causal")
    torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="the checkpoint in model/ cannot be loaded"):
        load_model(checkpoint, "causal")


def test_untrusted_keys_that_say_nothing_are_harmless(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": None}))
    assert check_config(checkpoint)["vocab_size"] == 19


@pytest.mark.parametrize(
    ("device", "count", "resolved"),
    [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cpu", 0, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1")],
)
def test_a_device_that_is_there_is_taken(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, resolved: str
) -> None:
    see_cuda_devices(monkeypatch, count)
    assert resolve_device(device) == resolved


@pytest.mark.parametrize(
    ("device", "count", "sentence"),
    [
        ("cuda", 0, "'cuda' was asked for, but PyTorch sees no CUDA device"),
        ("cuda:0", 0, "'cuda:0' was asked for, but PyTorch sees no CUDA device"),
        ("cuda:2", 2, "'cuda:2' was asked for, but PyTorch sees 2 CUDA device"),
        ("gpu", 1, "device 'gpu' is unknown; use auto, cpu, cuda or cuda:N"),
        ("cuda:x", 1, "device 'cuda:x' is unknown"),
        ("cpu:x", 1, "device 'cpu:x' is unknown"),
        ("", 1, "device '' is unknown"),
    ],
)
def test_a_device_that_is_not_there_is_the_callers_mistake(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, sentence: str
) -> None:
    see_cuda_devices(monkeypatch, count)
    with pytest.raises(InputError, match=sentence):
        resolve_device(device)


def see_cuda_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("dtype", "device", "resolved"),
    [
        ("auto", "cpu", "float32"),
        ("auto", "cuda", "bfloat16"),
        ("auto", "cuda:1", "bfloat16"),
        ("fp32", "cuda", "float32"),
        ("fp16", "cpu", "float16"),
        ("bf16", "cpu", "bfloat16"),
        ("float32", "cuda", "float32"),
    ],
)
def test_the_dtype_is_what_is_asked_for_or_follows_from_the_device(dtype: str, device: str, resolved: str) -> None:
    assert resolve_dtype(dtype, device=device, stored="bfloat16") == resolved


def test_a_dtype_that_no_model_is_served_in_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match="dtype 'int8' is unknown; use auto, float32, bfloat16, float16"):
        resolve_dtype("int8", device="cpu", stored="float32")
