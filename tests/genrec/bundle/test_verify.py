"""Every way of damaging a bundle is found, by its own check, and told in one sentence that names the file or item.

Damage of bytes is found by the hashes. Where a test reseals the bundle, hashes and version are right again, so that
only the check in question stands between the damage and a served answer.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genrec import commands
from genrec.bundle import layout, load_bundle
from genrec.bundle.catalog import read_catalog
from genrec.bundle.manifest import read_manifest
from genrec.bundle.verify import check_tokens
from genrec.errors import BundleError
from genrec.models import load_tokenizer
from genrec.recommender import Recommender
from tests.fakes import reseal
from tests.genrec.bundle.damage import CONFIG, NO_MODEL, RESEALED, WEIGHTS, json_file, poisoned

FILES = (
    "README.md",
    "catalog/ids.marisa",
    "catalog/items.marisa",
    "catalog/items.parquet",
    "golden.jsonl",
    "model/config.json",
    "model/generation_config.json",
    "model/model.safetensors",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
)


def refused(bundle: Path, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both doors refuse the bundle with one and the same sentence, the command line with exit code 65."""
    with pytest.raises(BundleError, match=sentence) as error:
        Recommender.load(bundle, device="cpu")
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    with pytest.raises(SystemExit) as exit_of:
        commands.main(["inspect", "--verify", str(bundle)])
    assert exit_of.value.code == 65
    assert capsys.readouterr().err == f"genrec inspect: {message}\n"


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_no_file_of_a_bundle_is_forgotten_below(causal_bundle_path: Path) -> None:
    assert tuple(read_manifest(causal_bundle_path / layout.MANIFEST).files) == FILES


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_is_found(bundle_copy: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((bundle_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / name).write_bytes(content)
    refused(bundle_copy, f"file {name} has other bytes than when it was sealed", capsys)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [-1, -7, 1])
def test_a_file_cut_short_or_grown_is_found(bundle_copy: Path, name: str, change: int) -> None:
    content = (bundle_copy / name).read_bytes()
    (bundle_copy / name).write_bytes(content[:change] if change < 0 else content + b"\n")
    with pytest.raises(BundleError, match=rf"file {name} has \d+ bytes, but manifest.json lists {len(content)}"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(bundle_copy: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle_copy / name).unlink()
    refused(bundle_copy, rf"file {name} is listed in manifest.json but missing", capsys)


def test_a_missing_manifest_is_found(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle_copy / layout.MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Recommender.load(bundle_copy)
    with pytest.raises(SystemExit) as exit_of:
        commands.main(["inspect", "--verify", str(bundle_copy)])
    assert exit_of.value.code == 65
    assert "has no manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["extra.json", "model/pytorch_model.bin", "deep/er/notes.md", ".hidden"])
def test_a_file_that_is_not_listed_is_refused(bundle_copy: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle_copy / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle_copy / name).write_text("{}")
    refused(bundle_copy, f"file {name} is not listed in manifest.json; a bundle holds nothing else", capsys)


def test_a_link_in_place_of_a_file_is_refused_even_with_the_right_bytes(
    bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(bundle_copy / WEIGHTS, tmp_path / "elsewhere")
    (bundle_copy / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    refused(bundle_copy, f"file {WEIGHTS} is a link", capsys)


def test_a_link_in_place_of_a_directory_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    shutil.move(bundle_copy / "model", tmp_path / "elsewhere")
    (bundle_copy / "model").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(BundleError, match=f"file {CONFIG} is listed in manifest.json but missing"):
        load_bundle(bundle_copy)


def test_a_link_in_place_of_the_manifest_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    shutil.move(bundle_copy / layout.MANIFEST, tmp_path / "elsewhere.json")
    (bundle_copy / layout.MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"file manifest\.json is a link"):
        load_bundle(bundle_copy)


def test_a_pipe_is_refused_without_reading_it(bundle_copy: Path) -> None:
    (bundle_copy / WEIGHTS).unlink()
    os.mkfifo(bundle_copy / WEIGHTS)
    with pytest.raises(BundleError, match=f"file {WEIGHTS} is a link, a directory or a device"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("old", "new"), [('"num_beams": 6', '"num_beams": 7'), ("   15,\n   16", "   16,\n   15"), ('"tiny"', '"tinx"')]
)
def test_an_edited_manifest_is_found_by_its_version(
    bundle_copy: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (bundle_copy / layout.MANIFEST).read_text()
    assert text.count(old) == 1
    (bundle_copy / layout.MANIFEST).write_text(text.replace(old, new))
    refused(bundle_copy, r"manifest\.json states version .* it was edited after it was sealed", capsys)


# --- content, with hashes and version made right again ---------------------------------------------------------------


@pytest.mark.parametrize("name", RESEALED)
def test_damage_is_found_though_hashes_and_version_are_right(
    bundle_copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, sentence = RESEALED[name]
    changes = damage(bundle_copy)
    reseal(bundle_copy, **changes if isinstance(changes, dict) else {})
    refused(bundle_copy, sentence, capsys)


def test_resealing_alone_does_no_damage(bundle_copy: Path, causal_bundle_path: Path) -> None:
    before = read_manifest(causal_bundle_path / layout.MANIFEST)
    assert Recommender.load(reseal(bundle_copy)).bundle.manifest.version == before.version
    changed = Recommender.load(reseal(bundle_copy, name="renamed")).bundle.manifest
    assert (changed.name, changed.version != before.version) == ("renamed", True)


@pytest.mark.parametrize("token", [5, 12])
def test_the_start_token_of_a_decoder_is_no_item_token(
    seq2seq_bundle_path: Path, tmp_path: Path, token: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(seq2seq_bundle_path, tmp_path / "tiny"))
    json_file(CONFIG, decoder_start_token_id=token)(bundle)
    refused(reseal(bundle, decoder_prefix_ids=[token]), f"item token id {token}, which is '<", capsys)


def test_an_encoder_decoder_without_a_decoder_prefix_is_refused(
    seq2seq_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(seq2seq_bundle_path, tmp_path / "tiny"))
    refused(reseal(bundle, decoder_prefix_ids=[]), "decoder_prefix_ids must be given for seq2seq", capsys)
    refused(reseal(bundle, architecture="causal"), NO_MODEL, capsys)


def test_more_or_fewer_output_rows_than_embedding_rows_are_refused(causal_bundle_path: Path) -> None:
    bundle = load_bundle(causal_bundle_path)
    tokenizer = load_tokenizer(causal_bundle_path / "model")
    check_tokens(bundle.manifest, bundle.manifest.item_tokens, bundle.model, tokenizer)
    bundle.model.set_output_embeddings(torch.nn.Linear(16, 18, bias=False))
    with pytest.raises(BundleError, match="model/ has 19 embedding rows but 18 output rows"):
        check_tokens(bundle.manifest, bundle.manifest.item_tokens, bundle.model, tokenizer)


def test_a_model_of_the_other_kind_is_refused(causal_bundle_path: Path, seq2seq_bundle_path: Path) -> None:
    causal, seq2seq = load_bundle(causal_bundle_path), load_bundle(seq2seq_bundle_path)
    tokenizer = load_tokenizer(causal_bundle_path / "model")
    with pytest.raises(BundleError, match=r"manifest\.json says causal, but model/ is of the other kind"):
        check_tokens(causal.manifest, causal.manifest.item_tokens, seq2seq.model, tokenizer)


def test_a_catalog_is_read_without_the_rest(bundle_copy: Path) -> None:
    tokens = read_manifest(bundle_copy / layout.MANIFEST).item_tokens
    assert len(read_catalog((bundle_copy / layout.ITEMS).read_bytes(), tokens)) == 40


@pytest.mark.system
def test_the_installed_command_refuses_a_damaged_bundle_with_exit_code_65(bundle_copy: Path) -> None:
    poisoned("lm_head.weight", float("nan"))(bundle_copy)
    reseal(bundle_copy)
    command = [sys.executable, "-m", "genrec", "inspect", "--verify", str(bundle_copy)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (65, "")
    assert run.stderr == (
        "genrec inspect: weight 'lm_head.weight' in model/ holds NaN or infinite values; the checkpoint is damaged.\n"
    )
