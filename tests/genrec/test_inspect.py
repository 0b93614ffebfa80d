"""`genrec inspect` shows what a bundle is, and with --verify whether it would be served."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec import commands
from genrec.bundle import layout, load_draft
from genrec.bundle.manifest import read_manifest
from genrec.recommender import Recommender
from tests.fakes import TinyShape, reseal, tiny_bundle, write_tiny_draft


def inspect(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    with pytest.raises(SystemExit) as exit_of:
        commands.main(["inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (exit_of.value.code, captured.err) == (0, "")
    return captured.out.splitlines()


def test_manifest_catalog_and_levels_are_shown(bundle_path: Path, architecture: str, capsys) -> None:
    version = read_manifest(bundle_path / layout.MANIFEST).version
    lines = inspect(capsys, bundle_path)
    assert lines[0].startswith(f"tiny {version}, format 1, sealed 20")
    shown = dict(line.split(maxsplit=1) for line in lines[1:6])
    assert shown["model"].startswith(f"{architecture}, float32, 0.0 MB of ")
    assert shown["generation"] == "6 beams, k up to 50, length penalty 1, history excluded"
    assert shown["prompt"] == "newest 5 items, oldest first"
    assert shown["dataset"] == "random"
    assert shown["catalog"] == "40 items, metadata: title (string), year (integer)"
    assert [line.split()[:2] for line in lines[6:]] == [["level", "0"], ["level", "1"], ["level", "2"]]
    assert lines[-1].startswith("level 2     4 of 4 codes used, entropy ")
    assert lines[-1].endswith(", 40 distinct prefixes")


def test_the_share_of_codes_that_are_used_is_shown(tmp_path: Path, capsys) -> None:
    bundle = tiny_bundle(tmp_path, TinyShape(codebook_sizes=(1, 64, 2), num_items=128))
    capsys.readouterr()
    lines = inspect(capsys, bundle)[-3:]
    assert lines == [
        "level 0     1 of 1 codes used, entropy 1.00, 1 distinct prefixes",
        "level 1     64 of 64 codes used, entropy 1.00, 64 distinct prefixes",
        "level 2     2 of 2 codes used, entropy 1.00, 128 distinct prefixes",
    ]


def test_a_level_with_one_code_of_many_has_no_entropy(bundle_copy: Path, capsys) -> None:
    manifest = read_manifest(bundle_copy / layout.MANIFEST)
    ids = [list(level) for level in manifest.item_token_ids]
    reseal(bundle_copy, codebook_sizes=[6, 5, 4, 3], num_levels=4, item_token_ids=[*ids, [100, 101, 102]])
    table = pq.read_table(bundle_copy / layout.ITEMS)
    pq.write_table(table.append_column("code_3", pa.array([1] * 40, pa.int32())), bundle_copy / layout.ITEMS)
    assert inspect(capsys, bundle_copy)[-1] == "level 3     1 of 3 codes used, entropy 0.00, 40 distinct prefixes"


def test_every_check_of_a_server_is_run_when_asked(bundle_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, object]] = []
    load = Recommender.load

    def watched(path: Path, **options: object) -> Recommender:
        loaded.append(options)
        return load(path, **options)

    monkeypatch.setattr(Recommender, "load", watched)
    assert not inspect(capsys, bundle_path)[0].startswith("verified")
    assert loaded == []
    lines = inspect(capsys, bundle_path, "--verify")
    assert lines[0] == "verified: hashes, weights, tokens, catalog, trie, golden answers (beam engine)"
    assert loaded == [{"device": "cpu", "dtype": "float32", "expect_version": None}]


@pytest.mark.parametrize("name", ["nothing", "draft"])
@pytest.mark.parametrize("options", [[], ["--verify"]])
def test_what_is_no_bundle_is_refused(tmp_path: Path, capsys, name: str, options: list[str]) -> None:
    draft = write_tiny_draft(tmp_path, TinyShape())
    assert len(load_draft(draft).catalog) == 40
    with pytest.raises(SystemExit) as exit_of:
        commands.main(["inspect", str(tmp_path / name), *options])
    assert exit_of.value.code == 65
    assert "has no manifest.json, so it is not a bundle" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--verify"]])
def test_a_bundle_of_another_version_than_expected_is_refused(bundle_path: Path, capsys, options: list[str]) -> None:
    version = read_manifest(bundle_path / layout.MANIFEST).version
    assert inspect(capsys, bundle_path, *options, "--expect-version", version)
    with pytest.raises(SystemExit) as exit_of:
        commands.main(["inspect", str(bundle_path), *options, "--expect-version", "0123456789ab"])
    assert exit_of.value.code == 65
    assert f"the bundle has version {version}, but 0123456789ab is expected" in capsys.readouterr().err
