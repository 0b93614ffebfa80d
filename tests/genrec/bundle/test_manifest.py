"""The manifest is strict, and its version follows from its content as docs and design say."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from genrec.bundle import load_bundle
from genrec.bundle import manifest as manifest_module
from genrec.bundle.manifest import (
    DRAFT,
    FileFacts,
    Manifest,
    PromptPieces,
    check_version,
    content_version,
    read_manifest,
)
from genrec.errors import BundleError, InputError
from genrec.history import Prompt

# Written by hand, the version by `sha256sum` over the canonical text. Should it change, every bundle changes its name.
SEALED_TEXT = """{
 "version": "VERSION", "created_at": "2025-01-02T03:04:05+00:00",
 "format_version": 1, "name": "fixture", "architecture": "causal", "num_levels": 2, "codebook_sizes": [2, 1],
 "item_token_ids": [[5, 6], [7]],
 "prompt": {"prefix_ids": [3], "item_separator_ids": [], "suffix_ids": [], "max_history_items": 20,
            "order": "oldest_first"},
 "decoder_prefix_ids": [],
 "generation": {"num_beams": 20, "length_penalty": 1.0, "max_k": 100, "exclude_history": true},
 "golden": {"score_tolerance": 0.0001, "reduced_tolerance": 0.25, "reduced_overlap": 0.5},
 "model_inputs": [], "dtype": "bfloat16",
 "provenance": {"dataset": "Amélie", "seed": 7, "learning_rate": 0.0003},
 "files": {"README.md": {"sha256": "da0f266deed7c2c66f4708aa801d1ecd4aa289d2ee87e9c4525b30c8cba9ac88", "bytes": 7}}
}"""
CANONICAL_TEXT = (
    '{"architecture":"causal","codebook_sizes":[2,1],"decoder_prefix_ids":[],"dtype":"bfloat16","files":{"README.md":'
    '{"bytes":7,"sha256":"da0f266deed7c2c66f4708aa801d1ecd4aa289d2ee87e9c4525b30c8cba9ac88"}},"format_version":1,'
    '"generation":{"exclude_history":true,"length_penalty":1.0,"max_k":100,"num_beams":20},"golden":{"reduced_overlap":'
    '0.5,"reduced_tolerance":0.25,"score_tolerance":0.0001},"item_token_ids":[[5,6],[7]],"model_inputs":[],"name":'
    '"fixture","num_levels":2,"prompt":{"item_separator_ids":[],"max_history_items":20,"order":"oldest_first",'
    '"prefix_ids":[3],"suffix_ids":[]},"provenance":{"dataset":"Am\\u00e9lie","learning_rate":0.0003,"seed":7}}'
)
VERSION = "e84505d9de01"


def fixture(**changes: Any) -> dict[str, Any]:
    return json.loads(SEALED_TEXT) | {"version": VERSION} | changes


def written(root: Path, content: Any) -> Path:
    file = root / "manifest.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_the_version_is_the_short_sha256_of_the_canonical_text(tmp_path: Path) -> None:
    assert hashlib.sha256(CANONICAL_TEXT.encode("ascii")).hexdigest()[:12] == VERSION
    assert content_version(json.loads(SEALED_TEXT)) == VERSION
    assert read_manifest(written(tmp_path, fixture())).version == VERSION


def test_a_sealed_bundle_states_the_version_that_its_content_has(bundle_path: Path) -> None:
    raw = json.loads((bundle_path / "manifest.json").read_text())
    content = {key: raw[key] for key in sorted(raw) if key not in ("version", "created_at")}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert raw["version"] == hashlib.sha256(canonical.encode()).hexdigest()[:12]
    for name, facts in raw["files"].items():
        content_bytes = (bundle_path / name).read_bytes()
        assert facts == {"bytes": len(content_bytes), "sha256": hashlib.sha256(content_bytes).hexdigest()}


def test_the_date_is_no_part_of_the_version_and_all_else_is() -> None:
    raw = fixture()
    assert content_version(raw | {"created_at": "another", "version": "another"}) == VERSION
    for key in raw.keys() - {"created_at", "version"}:
        assert content_version(raw | {key: "another"}) != VERSION, key


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, fixture()))
    assert read_manifest(written(tmp_path, manifest.to_json())) == manifest
    assert manifest.provenance["dataset"] == "Amélie"
    assert manifest.item_tokens.token_ids == ((5, 6), (7,))


def test_sealing_gives_files_date_and_version(tmp_path: Path) -> None:
    draft = Manifest.model_validate_json(json.dumps(fixture(version=DRAFT, files={}, created_at="")))
    files = {"README.md": FileFacts(**fixture()["files"]["README.md"])}
    sealed = draft.sealed(files=files, created_at="2025-01-02T03:04:05+00:00")
    assert sealed == read_manifest(written(tmp_path, fixture()))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "cannot be read"),
        ('{"name": ', "cannot be read"),
        ("[" * 5000, "cannot be read"),
        (b"\xff\xfe".decode("latin-1"), "cannot be read"),
        ("[]", "is not a JSON object"),
        (fixture(format_version=2), "format_version 2; this version of genrec reads up to 1. Upgrade"),
        (fixture(format_version=0), "key format_version"),
        (fixture(format_version="1"), "key format_version"),
        (fixture(surprise=1), "key surprise: Extra inputs"),
        ({key: value for key, value in fixture().items() if key != "prompt"}, "key prompt: Field required"),
        (fixture(name="../elsewhere"), "key name"),
        (fixture(name="a\n"), "key name"),
        (fixture(architecture="encoder"), "key architecture"),
        (fixture(num_levels="2"), "key num_levels"),
        (fixture(num_levels=0), "key num_levels"),
        (fixture(decoder_prefix_ids=[-1]), "key decoder_prefix_ids.0"),
        (fixture(decoder_prefix_ids=[2**31]), "key decoder_prefix_ids.0"),
        (fixture(dtype="int8"), "key dtype"),
        (fixture(prompt={"max_history_items": 0}), "key prompt.max_history_items"),
        (fixture(prompt={"order": "newest_first"}), "key prompt.order"),
        (fixture(generation={"num_beams": 0}), "key generation.num_beams"),
        (fixture(generation={"num_beams": 2.5}), "key generation.num_beams"),
        (fixture(generation={"exclude_history": 1}), "key generation.exclude_history"),
        (fixture(generation={"length_penalty": -0.1}), "key generation.length_penalty"),
        (fixture(generation={"length_penalty": 1e9}), "key generation.length_penalty"),
        (fixture(golden={"score_tolerance": 0.0}), "key golden.score_tolerance"),
        (fixture(golden={"score_tolerance": float("inf")}), "key golden.score_tolerance"),
        (fixture(golden={"reduced_overlap": 1.5}), "key golden.reduced_overlap"),
        (fixture(files={"a": {"bytes": 1, "sha256": "xyz"}}), "key files.a.sha256"),
        (fixture(files={"a": {"bytes": -1, "sha256": "0" * 64}}), "key files.a.bytes"),
        (fixture(generation={"length_penalty": float("nan")}), "manifest.json"),
        (fixture(provenance={"loss": float("nan")}), "manifest.json"),
        (fixture(provenance={"dataset": "\ud800"}), "manifest.json"),
        (fixture(version="000000000000"), "'000000000000', but its content has version .* edited after it was sealed"),
        (fixture(name="renamed"), "edited after it was sealed"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_as_described_is_refused_with_the_key(
    tmp_path: Path, content: Any, sentence: str
) -> None:
    with pytest.raises(BundleError, match=sentence) as refused:
        read_manifest(written(tmp_path, content))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("manifest.json")


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path / "manifest.json")


def test_a_manifest_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    for depth in (300, 800, 2000, 100_000):
        text = json.dumps(fixture()).replace('"Am\\u00e9lie"', "[" * depth + "]" * depth)
        with pytest.raises(BundleError, match=r"^manifest\.json"):
            read_manifest(written(tmp_path, text))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"item_token_ids": [[5, 6], [6]]}, "token id 6 stands for two codes"),
        ({"item_token_ids": [[5, 6], []]}, "every level needs at least one"),
        ({"codebook_sizes": [2, 2]}, r"codebooks of \[2, 1\], but codebook_sizes says \[2, 2\]"),
        ({"num_levels": 3}, "num_levels 3"),
    ],
)
def test_item_tokens_that_contradict_the_manifest_are_refused(changes: dict[str, Any], sentence: str) -> None:
    manifest = Manifest.model_validate_json(json.dumps(fixture(version=DRAFT, **changes)))
    with pytest.raises(BundleError, match=sentence):
        _ = manifest.item_tokens


def test_the_prompt_pieces_are_the_encoders_prompt() -> None:
    pieces = PromptPieces(prefix_ids=(1,), item_separator_ids=(2,), suffix_ids=(3,), max_history_items=4)
    assert pieces.prompt == Prompt((1,), (2,), (3,), 4)


def test_a_manifest_is_read_up_to_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, fixture())
    monkeypatch.setattr(manifest_module, "MAX_BYTES", file.stat().st_size)
    assert read_manifest(file).version == VERSION
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"^manifest\.json is longer than \d+ bytes"):
        read_manifest(file)


# --- the version that is expected ------------------------------------------------------------------------------------


def versioned() -> Manifest:
    return Manifest.model_validate_json(json.dumps(fixture()))


def test_the_version_that_is_expected_is_taken_and_so_is_any_where_none_is() -> None:
    check_version(versioned(), VERSION)
    check_version(versioned(), None)


@pytest.mark.parametrize("other", ["0123456789ab", VERSION[:11] + "0", VERSION[:6] + "000000"])
def test_another_version_is_refused_with_both(other: str) -> None:
    with pytest.raises(BundleError, match=f"the bundle has version {VERSION}, but {other} is expected"):
        check_version(versioned(), other)


@pytest.mark.parametrize(
    "expected",
    ["", VERSION[:6], VERSION[:-1], VERSION + "0", VERSION.upper(), f" {VERSION}", f"{VERSION}\n", "latest", "g" * 12],
)
def test_what_is_no_version_is_the_callers_mistake(expected: str) -> None:
    with pytest.raises(InputError, match="is not the version of a bundle, which is 12 digits of 0-9 and a-f"):
        check_version(versioned(), expected)


# --- what loading takes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "dtype", "resident", "peak"),
    [
        ("float32", "float32", 1000, 1000),
        ("float32", "bfloat16", 500, 1500),
        ("bfloat16", "float32", 2000, 3000),
        ("bfloat16", "float16", 1000, 2000),
        ("float16", "float16", 1000, 1000),
    ],
)
def test_the_memory_of_the_weights_follows_from_their_files(stored: str, dtype: str, resident: int, peak: int) -> None:
    sizes = {
        "model/a.safetensors": 600,
        "model/b.safetensors": 400,
        "quantizer/codebooks.safetensors": 7,
        "model/x.json": 9,
    }
    files = {name: {"bytes": size, "sha256": "0" * 64} for name, size in sizes.items()}
    manifest = Manifest.model_validate_json(json.dumps(fixture(version=DRAFT, dtype=stored, files=files)))
    assert manifest.stored_weight_bytes == 1000
    assert manifest.weight_bytes(dtype) == resident
    assert manifest.loading_bytes(dtype) == peak


def test_the_weights_of_a_bundle_take_about_what_is_said(bundle_path: Path, architecture: str) -> None:
    bundle = load_bundle(bundle_path)
    loaded = sum(parameter.nbytes for parameter in bundle.model.parameters())
    header = 4096
    assert loaded <= bundle.manifest.weight_bytes("float32") <= loaded + header
